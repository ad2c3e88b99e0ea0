#!/usr/bin/env bash
# The README's commands on a Debian 12 with only what the README asks for.
# Usage: run.sh [make target ...]      default: demo; `run.sh demo test` runs both
set -euo pipefail

SUITE=bookworm
NEEDED=git,make,python3,python3-venv,ca-certificates
TARGETS=("${@:-demo}")
REPOSITORY=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)

say() { echo "test-bare: $*"; }
fail() { say "$*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || fail "making and entering a bare system needs root"
command -v mmdebstrap unshare >/dev/null || fail "apt-get install -y mmdebstrap util-linux"

# Mirror, proxies and certificates are those of this machine's own settings.
mirror=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk -v own="$(. /etc/os-release && echo "$VERSION_CODENAME")" \
        '$1 == "main" && $3 == own { print $2; exit }')
[ -n "$mirror" ] || fail "this machine's apt has no source of its own release"
environment=(PATH=/usr/bin:/bin LANG=C.UTF-8)
while IFS= read -r setting; do environment+=("$setting"); done < <(
    env | grep -E '^(PIP|UV|NODE|SSL|GIT_SSL|REQUESTS|CURL)_[A-Z_]+=|^(https?|all|no)_proxy=|^(HTTPS?|ALL|NO)_PROXY=' || true
)
if command -v npm >/dev/null; then
    environment+=("npm_config_registry=$(npm config get registry)")
fi

work=$(mktemp -d)
tree=$work/tree
# The mounts were in their own namespace, which has ended by now: only files are left.
trap 'rm -rf --one-file-system "$work"' EXIT

say "commit $(git -C "$REPOSITORY" rev-parse --short HEAD) on a bare Debian ($SUITE) with $NEEDED"
# apt fetches as another user, who must be able to enter.
chmod 755 "$work"
apt-config dump | grep '^Acquire::' >"$work/apt.conf" || true
mmdebstrap --quiet --variant=minbase --include="$NEEDED" --aptopt="$work/apt.conf" \
    "$SUITE" "$tree" "deb $mirror $SUITE main"
for file in /etc/hosts /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt \
    ${SSL_CERT_FILE:+"$SSL_CERT_FILE"} ${PIP_CERT:+"$PIP_CERT"} \
    ${NODE_EXTRA_CA_CERTS:+"$NODE_EXTRA_CA_CERTS"}; do
    if [ -f "$file" ]; then install -D -m 644 "$file" "$tree$file"; fi
done
chroot "$tree" useradd --create-home tester
git -C "$REPOSITORY" bundle create --quiet "$tree/srv/nexus.bundle" HEAD
chmod 644 "$tree/srv/nexus.bundle"

home_of() { chroot "$tree" getent passwd "$1" | cut -d: -f6; }

in_tree() { # Run a command as a user of the bare system; its processes end with it.
    unshare --mount --pid --fork --kill-child bash -c '
        tree=$1 user=$2; shift 2
        mount -t proc proc "$tree/proc" && mount --rbind /dev "$tree/dev" &&
            mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp" && exec chroot --userspec="$user" "$tree" "$@"
    ' in_tree "$tree" "$1" env -i "${environment[@]}" HOME="$(home_of "$1")" sh -c "$2"
}

# Also as root, whose home no other user may enter: PostgreSQL runs as another user.
for user in tester root; do
    in_tree "$user" 'git -c advice.detachedHead=false clone --quiet /srv/nexus.bundle ~/nexus'
    for target in "${TARGETS[@]}"; do
        say "make $target, as $user"
        began=$SECONDS
        status=0
        in_tree "$user" "cd ~/nexus && make $target" >"$work/$target.log" 2>&1 || status=$?
        tail -n 40 "$work/$target.log"
        say "make $target, as $user: exit status $status after $((SECONDS - began)) s"
        [ "$status" -eq 0 ] || exit "$status"
    done
done
