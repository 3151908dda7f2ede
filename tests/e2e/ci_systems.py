"""What runs a pipeline's shell, without the system around it: GitHub Actions, GitLab and Tekton, as far as the examples use them.

Steps are taken from the YAML as it lies there, and run in its order. What a system puts into a step (environment,
expressions, files for results) is put there as it does; what is not understood is an error.
"""

import re
import stat
import subprocess
from pathlib import Path

import yaml

# A step sees this and what its system gives it, and nothing of whoever runs the tests.
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
SUBSTITUTION = re.compile(r"\$\(([a-zA-Z][^)\s]*)\)")


class StepFailed(AssertionError):
    """A step that did not end with 0; `step`, `status` and `output` tell of it."""

    def __init__(self, step, status, output):
        super().__init__(f"{step}: exit {status}\n{output}")
        self.step, self.status, self.output = step, status, output


class Machine:
    """What all steps of a job share: a directory to work in, a home, a PATH, and what they said."""

    def __init__(self, directory, path, env=None):
        self.dir = Path(directory)
        self.home, self.tmp, self.work = (self.dir / name for name in ("home", "tmp", "work"))
        for each in (self.home, self.tmp, self.work):
            each.mkdir(parents=True, exist_ok=True)
        # What asks for more than loopback finds nobody there.
        self.base = {"PATH": path, "HOME": str(self.home), "TMPDIR": str(self.tmp), "HTTPS_PROXY": "http://127.0.0.1:9"} | (env or {})
        self.said = []

    def run(self, step, argv, env, cwd=None, timeout=120):
        env = {name: str(value) for name, value in (self.base | env).items()}
        done = subprocess.run(
            [str(word) for word in argv], env=env, cwd=cwd or self.work, timeout=timeout, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.said.append(done.stdout)
        if done.returncode:
            raise StepFailed(step, done.returncode, done.stdout[-6000:])
        return done.stdout

    @property
    def output(self):
        return "".join(self.said)


def load(path):
    # YAML 1.2, as all three systems read it: `on` is a word.
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return yaml.load(Path(path).read_text(), loader)


# GitHub Actions


def evaluate(text, contexts):
    """A string with `${{ }}`, of which there are only paths into contexts and `||` between them."""

    def one(match):
        for operand in match[1].split("||"):
            value = contexts
            for name in operand.strip().split("."):
                assert re.fullmatch(r"[A-Za-z_][\w-]*", name), f"not understood: {match[0]}"
                assert isinstance(value, dict), f"{match[0]}: {name} is in nothing"
                # What is not there is empty, as at GitHub; a context that is not there is a mistake.
                assert value is not contexts or name in contexts, f"there is no context {name}: {match[0]}"
                value = value.get(name, "")
            if value != "":
                return str(value)
        return ""

    return EXPRESSION.sub(one, str(text))


def assignments(text):
    """NAME=VALUE lines of GITHUB_ENV and GITHUB_OUTPUT, without here-documents."""
    pairs = [line.partition("=") for line in text.splitlines()]
    assert all(name and sign for name, sign, _ in pairs), text
    return {name: value for name, _, value in pairs}


def github(path, machine, inputs, contexts, uses=None, after=lambda step: None):
    """Runs the one job of a workflow that is begun by hand; gives its outputs.

    `uses` are stand-ins for actions: a function of the step's `with` for each name before the `@`. What is to be had
    from an action is a matter of the machine.
    """
    workflow = load(path)
    declared = workflow["on"]["workflow_dispatch"]["inputs"]
    assert set(inputs) <= set(declared), f"unknown inputs: {set(inputs) - set(declared)}"
    given = {}
    for name, about in declared.items():
        assert name in inputs or not about.get("required"), f"{name} is required"
        given[name] = inputs.get(name, about.get("default", ""))
    ((_, job),) = workflow["jobs"].items()
    temp = machine.dir / "runner-temp"
    temp.mkdir()
    contexts = {"inputs": given, "vars": {}, "secrets": {}, "github": {}, "steps": {}} | contexts
    level = {name: evaluate(value, contexts) for name, value in (workflow.get("env") or {}).items()}
    level |= {name: evaluate(value, contexts) for name, value in (job.get("env") or {}).items()}
    # Only what runs on a runner knows it.
    contexts["runner"] = {"temp": str(temp), "os": "Linux", "arch": "X64"}
    gathered, paths = {}, []
    for number, step in enumerate(job["steps"]):
        name = step.get("name") or step.get("uses") or f"step {number}"
        known = {"name", "id", "uses", "with", "env", "run"}
        assert set(step) <= known, f"{name}: not understood: {set(step) - known}"
        if "uses" in step:
            (uses or {})[step["uses"].partition("@")[0]](step.get("with") or {})
            continue
        assert not EXPRESSION.search(step["run"]), f"{name}: an expression in a script is a way to inject commands"
        files = {}
        for file in ("ENV", "OUTPUT", "PATH", "STEP_SUMMARY"):
            files[f"GITHUB_{file}"] = temp / f"{file.lower()}-{number}"
            files[f"GITHUB_{file}"].touch()
        own = {key: evaluate(value, contexts) for key, value in (step.get("env") or {}).items()}
        env = {"CI": "true", "GITHUB_ACTIONS": "true", "RUNNER_TEMP": temp, "GITHUB_WORKSPACE": machine.work}
        env |= level | gathered | own | files
        env["PATH"] = ":".join([*reversed(paths), machine.base["PATH"]])
        script = temp / f"script-{number}.sh"
        script.write_text(step["run"])
        # The command line of a step without `shell`.
        machine.run(name, ["bash", "-e", script], env)
        gathered |= assignments(files["GITHUB_ENV"].read_text())
        paths += files["GITHUB_PATH"].read_text().split()
        if "id" in step:
            contexts["steps"][step["id"]] = {"outputs": assignments(files["GITHUB_OUTPUT"].read_text())}
        after(name)
    return {name: evaluate(value, contexts) for name, value in job["outputs"].items()}


# GitLab


def gitlab(path, machine, variables, after=lambda step: None):
    """Runs the one job of a file; gives the variables of its dotenv report, and the paths of its artifacts."""
    document = load(path)
    defaults = document.pop("variables", {})
    ((name, job),) = document.items()
    values = {key: value["value"] if isinstance(value, dict) else value for key, value in defaults.items()}
    values |= job.get("variables", {})
    # Those of the project, of the one who begins it, and GitLab's own win.
    values |= variables
    for _ in values:
        # They may name each other.
        values = {
            key: re.sub(r"\$(\w+)", lambda match: str(values.get(match[1], "")), str(value))
            if key not in variables else str(value)
            for key, value in values.items()
        }
    script = job.get("before_script", []) + job["script"]
    assert all(isinstance(line, str) for line in script)
    failed = None
    try:
        for number, line in enumerate(script):
            # The runner makes one script of all lines; run one by one they fail at the same place, as none of them
            # leaves anything in its shell.
            machine.run(f"{name}: {line}", ["sh", "-ec", line], values | {"CI": "true", "GITLAB_CI": "true"})
            after(line)
    except StepFailed as error:
        failed = error
    for line in job.get("after_script", []):
        machine.run(f"{name}: {line}", ["sh", "-ec", line], values)
    if failed:
        raise failed
    reports = machine.work / job["artifacts"]["reports"]["dotenv"]
    return assignments(reports.read_text()), [machine.work / each for each in job["artifacts"]["paths"]]


# Tekton


def tekton(path, machine, params, workspaces, context=None, after=lambda step: None):
    """Runs the steps of a task; gives its results. `workspaces` are directories by name."""
    task = load(path)
    spec = task["spec"]
    values = {f"context.taskRun.{key}": value for key, value in (context or {}).items()}
    for param in spec["params"]:
        assert param["name"] in params or "default" in param, f"{param['name']} is required"
        values[f"params.{param['name']}"] = params.get(param["name"], param.get("default"))
    assert set(params) <= {param["name"] for param in spec["params"]}
    for workspace in spec["workspaces"]:
        assert workspace["name"] in workspaces or workspace.get("optional"), f"{workspace['name']} is required"
        values[f"workspaces.{workspace['name']}.path"] = str(workspaces.get(workspace["name"], ""))
    results = machine.dir / "results"
    results.mkdir()
    for result in spec["results"]:
        values[f"results.{result['name']}.path"] = str(results / result["name"])

    def fill(text):
        def one(match):
            assert match[1] in values, f"{match[0]} is not known"
            return values[match[1]]

        return SUBSTITUTION.sub(one, text)

    template = spec.get("stepTemplate", {})
    for step in spec["steps"]:
        env = {}
        for entry in [*template.get("env", []), *step.get("env", [])]:
            if "valueFrom" in entry:
                assert entry["valueFrom"]["secretKeyRef"]["optional"] is True, f"{entry['name']} is required"
                continue
            env[entry["name"]] = fill(entry["value"])
        text = step["script"]
        # A shell's own `$(…)` has a space, or is a command; what Tekton would fill in, it must know.
        for name in re.findall(r"\$\(((?:params|workspaces|results|context)\.[^)]*)\)", text):
            assert not name.startswith("params."), f"{step['name']}: a parameter in a script is a way to inject commands"
            text = text.replace(f"$({name})", fill(f"$({name})"))
        script = machine.dir / f"script-{step['name']}"
        script.write_text(text)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        directory = fill(step.get("workingDir", template.get("workingDir", ""))) or machine.work
        machine.run(step["name"], [script], env, cwd=directory)
        after(step["name"])
    found = {result["name"]: (results / result["name"]).read_text() for result in spec["results"]}
    # All results of a task share the 4 KiB of a container's termination message.
    assert sum(map(len, found.values())) < 4096
    return found
