#!/usr/bin/env python3
"""Make examples/tiny-llama: a Llama in the layout of a Hugging Face repository, small enough to keep in git.

The weights are noise, but every file is real: transformers loads the directory, its tokenizer and its chat
template, and generates. Only the standard library is used, and only integer arithmetic and exactly rounded
conversions, so that any Python 3 on any machine writes the same bytes.

    python3 examples/make_tiny_llama.py [DIRECTORY]      write the model (default: tiny-llama beside this file)
    python3 examples/make_tiny_llama.py --check [DIR]    exit 1 unless DIR holds exactly those bytes
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

HIDDEN = 64
INTERMEDIATE = 128
LAYERS = 2
HEADS = 4
KV_HEADS = 2
HEAD_DIM = HIDDEN // HEADS
STDDEV = 0.02

SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
# Merges that make common English pieces; each line joins two tokens known by then.
MERGES = [
    "t h", "th e", "Ġ the", "i n", "a n", "e r", "r e", "o n", "e n", "o r", "in g", "Ġ a", "Ġ s", "Ġ t",
    "Ġ w", "Ġ o", "Ġ m", "o d", "e l", "od el", "Ġm odel", "an d", "Ġ and", "s t", "a r", "st ar", "c ar",
    "star car",
]
VOCABULARY = len(SPECIAL) + 256 + len(MERGES)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def byte_characters():
    """The printable character that byte-level BPE writes for each byte (as GPT-2 defined it)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return [table[byte] for byte in range(256)]


def json_bytes(value):
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def added_token(index, content):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": content, **flags}


def tokenizer():
    tokens = [*SPECIAL, *byte_characters(), *(merge.replace(" ", "") for merge in MERGES)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(index, content) for index, content in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in MERGES],
        },
    }


def bf16(value):
    """The two bytes of the bfloat16 nearest to `value` (ties to even)."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return struct.pack("<H", (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


def noise(name, count):
    """`count` bfloat16 values, close to normal with STDDEV, drawn from SHA-256 of the tensor's name."""
    out = bytearray()
    scale = STDDEV / 65536
    for index in range(count):
        draw = hashlib.sha256(f"{name}:{index}".encode()).digest()
        # The sum of twelve uniform 16-bit numbers has a standard deviation of 65536.
        out += bf16((sum(struct.unpack("<12H", draw[:24])) - 6 * 65535) * scale)
    return bytes(out)


def tensors():
    """Name and shape of every parameter."""
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", [HIDDEN]
        yield prefix + "mlp.down_proj.weight", [HIDDEN, INTERMEDIATE]
        yield prefix + "mlp.gate_proj.weight", [INTERMEDIATE, HIDDEN]
        yield prefix + "mlp.up_proj.weight", [INTERMEDIATE, HIDDEN]
        yield prefix + "post_attention_layernorm.weight", [HIDDEN]
        yield prefix + "self_attn.k_proj.weight", [KV_HEADS * HEAD_DIM, HIDDEN]
        yield prefix + "self_attn.o_proj.weight", [HIDDEN, HEADS * HEAD_DIM]
        yield prefix + "self_attn.q_proj.weight", [HEADS * HEAD_DIM, HIDDEN]
        yield prefix + "self_attn.v_proj.weight", [KV_HEADS * HEAD_DIM, HIDDEN]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def shard_of(name):
    """Which of the three shards holds a parameter: embeddings and first layer, the other layers, the head."""
    if name.startswith(("model.embed_tokens.", "model.layers.0.")):
        return 1
    return 2 if name.startswith("model.layers.") else 3


def shard(parameters):
    """The bytes of one safetensors file."""
    header = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, shape in sorted(parameters):
        count = 1
        for extent in shape:
            count *= extent
        content = bf16(1.0) * count if name.endswith("norm.weight") else noise(name, count)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def model():
    """Every file of the model: name to bytes."""
    parameters = list(tensors())
    count = 0
    for _, shape in parameters:
        count += shape[0] * (shape[1] if len(shape) > 1 else 1)
    names = {number: f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)}
    files = {
        names[number]: shard([(name, shape) for name, shape in parameters if shard_of(name) == number])
        for number in names
    }
    files["model.safetensors.index.json"] = json_bytes({
        "metadata": {"total_parameters": count, "total_size": 2 * count},
        "weight_map": {name: names[shard_of(name)] for name, _ in sorted(parameters)},
    })
    files["config.json"] = json_bytes({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dtype": "bfloat16",
        "eos_token_id": 1,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": STDDEV,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": VOCABULARY,
    })
    files["generation_config.json"] = json_bytes({
        "_from_model_config": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
    })
    files["tokenizer.json"] = json_bytes(tokenizer())
    files["tokenizer_config.json"] = json_bytes({
        "add_prefix_space": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": 512,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
    files["special_tokens_map.json"] = json_bytes({"bos_token": "<s>", "eos_token": "</s>"})
    files["chat_template.jinja"] = CHAT_TEMPLATE.encode()
    return files


def main(arguments):
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    directory = Path(rest[0]) if rest else Path(__file__).resolve().parent / "tiny-llama"
    files = model()
    if check:
        found = {path.name: path.read_bytes() for path in directory.iterdir()}
        wrong = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
        for name in wrong:
            print(f"{directory / name}: differs from what make_tiny_llama.py makes", file=sys.stderr)
        return 1 if wrong else 0
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    print(f"{directory}: {len(files)} files, {sum(map(len, files.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
