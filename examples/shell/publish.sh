#!/bin/sh
# Brings a model to a registry: packed, tried, signed, and only then named. Any POSIX shell will do; starcar, cosign and jq
# are in PATH.
#
#   publish.sh [STEP...]    without steps: pack gate sign check name
#
#   login   adds the registry's credentials to $DOCKER_CONFIG/config.json; other logins in it stay
#   pack    packs MODEL and pushes it by its digest alone; no tag tells of it yet
#   gate    refuses what breaks the rules, or starts too slowly
#   sign    signs the digest, and attests where it comes from and what is in it
#   check   verifies signature and attestations, as a cluster will
#   name    sets the tag
#
# What is told by the environment:
#
#   MODEL              hf://org/name@revision, or a directory
#   IMAGE              REGISTRY/REPOSITORY:TAG
#   PROFILE            what a start reads (generic)
#   BASE               the base image, if not starcar's default
#   PACK_OPTIONS       more options of starcar pack, one in each line, such as --cache=vllm@sm90=DIR
#   FAIL_ON            the least that stops the gate: error, warning, note, never (warning)
#   MAX_SECONDS        the longest start, such as 90s; empty: not tried
#   OUT                where results go (starcar-out): digest, image, metadata.json, provenance.json, sbom.spdx.json
#   BUILDER_ID, INVOCATION_ID      who packs, and in which run: for the provenance
#   REGISTRY_USER, REGISTRY_PASSWORD      for login
#   COSIGN_KEY         a private key's file, or a key in a KMS; empty: keyless
#   COSIGN_PASSWORD    the password of that file
#   COSIGN_PUBLIC_KEY  its public key (made from COSIGN_KEY)
#   IDENTITY, ISSUER   keyless: who must have signed
#   TRANSPARENCY_LOG   yes, or no (yes if keyless, no with a key: the log is public, and names the repository)
set -eu

OUT=${OUT:-starcar-out}
PROFILE=${PROFILE:-generic}
FAIL_ON=${FAIL_ON:-warning}
COSIGN_KEY=${COSIGN_KEY:-}
TRANSPARENCY_LOG=${TRANSPARENCY_LOG:-$([ -n "$COSIGN_KEY" ] && echo no || echo yes)}

die() {
    printf 'publish: %s\n' "$*" >&2
    exit 2
}

: "${IMAGE:?REGISTRY/REPOSITORY:TAG}"
case $IMAGE in
*@*) die "IMAGE=$IMAGE has a digest; only packing tells it" ;;
*/*:*) ;;
*) die "IMAGE=$IMAGE is not REGISTRY/REPOSITORY:TAG" ;;
esac
case ${IMAGE##*:} in
'' | */*) die "IMAGE=$IMAGE has no tag" ;;
esac
# What the steps after pack would stumble over, told before anything is pushed.
case $FAIL_ON in
error | warning | note | never) ;;
*) die "FAIL_ON=$FAIL_ON is none of error, warning, note, never" ;;
esac
if [ -n "${MAX_SECONDS:-}" ]; then
    case $MAX_SECONDS in
    *[0-9]s | *[0-9]ms | *[0-9]us | *[0-9]m | *[0-9]min) number=${MAX_SECONDS%%[a-z]*} ;;
    *) number= ;;
    esac
    case $number in
    '' | *[!0-9.]* | *.*.*) die "MAX_SECONDS=$MAX_SECONDS is no time such as 90s or 5min" ;;
    esac
    [ "$PROFILE" != none ] || die "PROFILE=none has no reads, so MAX_SECONDS=$MAX_SECONDS cannot be tried"
fi
repository=${IMAGE%:*}

# The image by its digest, which is all that the steps after pack speak of.
packed() {
    [ -s "$OUT/image" ] || die "$OUT/image is missing: run the step pack first"
    cat "$OUT/image"
}

# The images of its GPU targets, and then that image, whose files of the step check are those that stay.
each() {
    jq -r --arg repository "$repository" '(.variants // [])[].digest, .digest | "\($repository)@\(.)"' "$OUT/metadata.json"
}

login() {
    : "${DOCKER_CONFIG:?a directory for config.json}" "${REGISTRY_USER:?}" "${REGISTRY_PASSWORD:?}"
    mkdir -p "$DOCKER_CONFIG"
    registry=${IMAGE%%/*}
    # The name under which everybody keeps Docker Hub's.
    [ "$registry" != docker.io ] || registry=https://index.docker.io/v1/
    config=$DOCKER_CONFIG/config.json
    known=/dev/null
    if [ -e "$config" ]; then
        known=$config
        helper=$(registry=$registry jq -rs '.[0] // {} | .credHelpers[env.registry] // .credsStore // ""' "$config") ||
            die "$config is no JSON object"
        # Whoever reads the file asks the helper and does not look at what is written here.
        [ -z "$helper" ] || die "$config has logins of $registry in docker-credential-$helper: use it, or another DOCKER_CONFIG"
    fi
    # Only its owner can read it from the beginning, and it is there as a whole or as it was. The password is in no command
    # line: jq reads the environment.
    new=$(mktemp "$DOCKER_CONFIG/.config.json.XXXXXX")
    if registry=$registry jq -s '.[0] // {}
        | .auths[env.registry] = {auth: ("\(env.REGISTRY_USER):\(env.REGISTRY_PASSWORD)" | @base64)}' "$known" >"$new"; then
        mv "$new" "$config"
    else
        rm -f "$new"
        die "$config is no login file"
    fi
}

pack() {
    : "${MODEL:?hf://org/name@revision, or a directory}"
    mkdir -p "$OUT"
    rm -f "$OUT/image" "$OUT/digest"
    set -- "$MODEL" --profile "$PROFILE" --tag "$repository" --push --push-by-digest --metadata-file "$OUT/metadata.json" \
        --provenance "$OUT/provenance.json" --sbom "$OUT/sbom.spdx.json"
    [ -z "${BASE:-}" ] || set -- "$@" --base "$BASE"
    [ -z "${BUILDER_ID:-}" ] || set -- "$@" --builder-id "$BUILDER_ID"
    [ -z "${INVOCATION_ID:-}" ] || set -- "$@" --invocation-id "$INVOCATION_ID"
    if [ -n "${PACK_OPTIONS:-}" ]; then
        IFS='
'
        set -f
        # shellcheck disable=SC2086  # lines are meant to be split
        set -- "$@" $PACK_OPTIONS
        set +f
        unset IFS
    fi
    starcar pack "$@"
    jq -r .digest "$OUT/metadata.json" >"$OUT/digest"
    printf '%s@%s\n' "$repository" "$(cat "$OUT/digest")" >"$OUT/image"
}

gate() {
    packed >/dev/null
    images=$(each)
    for image in $images; do
        starcar verify --fail-on "$FAIL_ON" "$image"
        [ -z "${MAX_SECONDS:-}" ] || starcar replay --profile "$PROFILE" --max-seconds "$MAX_SECONDS" "$image"
    done
}

# cosign VERB with what says how to sign.
signing() {
    verb=$1
    shift
    [ -z "$COSIGN_KEY" ] || set -- --key "$COSIGN_KEY" "$@"
    if [ "$TRANSPARENCY_LOG" = no ]; then
        # cosign 3 is told by a list of services, and asks the world for Sigstore's keys if it is not told that none is needed.
        # cosign 2 has an option.
        if cosign signing-config create --out "$OUT/no-services.json" >/dev/null 2>&1; then
            cosign trusted-root create --out "$OUT/no-roots.json"
            set -- --signing-config "$OUT/no-services.json" --trusted-root "$OUT/no-roots.json" "$@"
        else
            set -- --tlog-upload=false "$@"
        fi
    fi
    cosign "$verb" --yes "$@"
}

sign() {
    packed >/dev/null
    images=$(each)
    # cosign makes the statement itself, for the image that it attests.
    jq .predicate "$OUT/provenance.json" >"$OUT/provenance.predicate.json"
    for image in $images; do
        signing sign --recursive "$image"
        signing attest --type slsaprovenance1 --predicate "$OUT/provenance.predicate.json" "$image"
        signing attest --type spdxjson --predicate "$OUT/sbom.spdx.json" "$image"
    done
}

# cosign VERB with what says whose signature counts. What it verified goes to a file.
verified() {
    verb=$1
    to=$2
    shift 2
    if [ -n "$COSIGN_KEY" ]; then
        if [ -z "${COSIGN_PUBLIC_KEY:-}" ]; then
            cosign public-key --key "$COSIGN_KEY" >"$OUT/cosign.pub"
            COSIGN_PUBLIC_KEY=$OUT/cosign.pub
        fi
        set -- --key "$COSIGN_PUBLIC_KEY" "$@"
    else
        set -- --certificate-identity "${IDENTITY:?}" --certificate-oidc-issuer "${ISSUER:?}" "$@"
    fi
    [ "$TRANSPARENCY_LOG" != no ] || set -- --insecure-ignore-tlog=true "$@"
    cosign "$verb" "$@" >"$OUT/$to"
}

check() {
    packed >/dev/null
    images=$(each)
    for image in $images; do
        verified verify signatures.json "$image"
        verified verify-attestation provenance.signed.json --type slsaprovenance1 "$image"
        verified verify-attestation sbom.signed.json --type spdxjson "$image"
    done
}

name() {
    image=$(packed)
    starcar copy "$image" "$IMAGE"
}

[ $# -gt 0 ] || set -- pack gate sign check name
for step in "$@"; do
    case $step in
    login) tools=jq ;;
    pack | gate) tools='starcar jq' ;;
    sign | check) tools='cosign jq' ;;
    name) tools=starcar ;;
    *) die "there is no step $step: login, pack, gate, sign, check, name" ;;
    esac
    for tool in $tools; do
        command -v "$tool" >/dev/null || die "$tool is not in PATH; the step $step needs it"
    done
done
for step in "$@"; do
    printf 'publish: %s\n' "$step" >&2
    "$step"
done
