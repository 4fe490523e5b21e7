# Sourced by `run` and `extended`: strict mode, a scratch directory, and the first steps.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1
# CI: hypothesis tries the same examples each time; at a desk it tries new ones.
export CI=1 HF_HUB_OFFLINE=1 SWEBENCH_TRAINER_REQUIRE_DOCKER=1

scratch=$(mktemp -d)
trap 'wait; rm -rf "$scratch"' EXIT
step() { printf '\n=== %s (at %s s)\n' "$1" "$SECONDS"; }

start_docker() {
  step "Docker"
  bash .ci/docker.sh
}

install_checkout() {
  step "Install"
  python3 -m venv "$scratch/venv"
  export PATH=$scratch/venv/bin:$PATH XDG_CACHE_HOME=$scratch/cache
  pip install -c constraints.txt -e '.[test]'
}

build_realtasks() {
  python tests/realtasks/build.py build/realtasks
}
