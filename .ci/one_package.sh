#!/usr/bin/env bash
# An install brings one name, psvit, whatever it is made from, and lives beside other people's search, conf and retrain.
#
#     .ci/one_package.sh FOLDER    makes wheels/ and venv/ (which has the wheel) in a folder that does not exist
#
# PYTHON is the Python whose packages the checks use, with build and mypy among them; .venv/bin/python by default.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
mkdir "$1" && work=$(realpath "$1")

say() { printf '\n==> %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }
# last COMMAND...: its last line, or all that it says when it fails
last() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }; tail -1 "$work/log"; }

# build_wheel SOURCE NAME: the wheel of a source tree, and the list of its files
build_wheel() {
    last "$python" -m build --no-isolation --wheel --outdir "$work/wheels/$2" "$1"
    "$python" - "$work/wheels/$2"/*.whl <<'PYTHON' >"$work/wheels/$2.txt"
import sys, zipfile
print(*sorted(zipfile.ZipFile(sys.argv[1]).namelist()), sep="\n")
PYTHON
}

say "wheels from the checkout, from a source distribution, and from a zip of the repository, which loses links"
mkdir "$work/checkout" "$work/wheels" "$work/sdist" "$work/zip"
git ls-files --cached --others --exclude-standard -z | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh |
    tar --null --files-from=- -cf - | tar -xf - -C "$work/checkout" # a clean copy: an old build/ would get into the wheel
last "$python" -m build --no-isolation --sdist --outdir "$work/sdist" "$work/checkout"
tar -xf "$work"/sdist/*.tar.gz -C "$work/sdist"
git archive --format=zip --output="$work/repository.zip" HEAD
"$python" -m zipfile -e "$work/repository.zip" "$work/zip"
[ -f "$work/zip/psvit/search" ] || fail "psvit/search of the zip should be a plain file, as unzipped without links"
build_wheel "$work/checkout" checkout
build_wheel "$work"/sdist/psvit_search-*/ sdist
build_wheel "$work/zip" zip
find "$work/zip/psvit" -maxdepth 1 -type f ! -name '*.*' -delete
build_wheel "$work/zip" zip-without-links
for other in sdist zip zip-without-links; do
    diff "$work/wheels/checkout.txt" "$work/wheels/$other.txt" || fail "the wheel from $other holds other files"
done
unzipped=$("$python" -c 'import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]).decode())' \
    "$work"/wheels/checkout/*.whl "$(grep top_level.txt "$work/wheels/checkout.txt")")
[ "$unzipped" = psvit ] || fail "top_level.txt names $unzipped"
[ "$(cut -d/ -f1 "$work/wheels/checkout.txt" | sort -u | grep -vc dist-info)" = 1 ] || fail "more names than psvit"
sources=$(cd "$work/checkout" && find psvit $(find psvit -maxdepth 1 -type l -printf '%f ') -name '*.py' | wc -l)
[ "$sources" = "$(grep -c '\.py$' "$work/wheels/checkout.txt")" ] || fail "the wheel lacks some of $sources modules"
echo "$(wc -l <"$work/wheels/checkout.txt") files in each, $sources modules; top_level.txt: $unzipped"

say "an uninstalled checkout"
"$python" -m venv "$work/venv"
# It sees torch and the other packages of that Python, but not the editable install, whose .pth is only read there.
packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
packages "$python" >"$(packages "$work/venv/bin/python")/dependencies.pth"
PATH=$work/venv/bin:$PATH
(cd "$work/checkout" && python -m psvit --help | sed -n 1p)

say "installed beside PyPI's retrain and ablate, in a folder with search/, conf/ and paper.py of the user's own"
pip() { python -m pip --disable-pip-version-check --quiet "$@"; }
pip install --no-deps --require-hashes -r .ci/strangers.txt
pip install --no-deps --no-index --force-reinstall "$work"/wheels/checkout/*.whl
mkdir -p "$work/desk/search" "$work/desk/conf" && cd "$work/desk"
for file in search/__init__.py conf/__init__.py paper.py; do
    echo 'raise SystemExit(f"psvit-search has imported the own {__file__} of the user")' >"$file"
done
python - <<'PYTHON'
import sys
from importlib import import_module
from importlib.metadata import packages_distributions
for name in ("", ".cli.main", ".conf", ".detection.train", ".explain.explain", ".paper", ".retrain.train", ".search.run", ".supernet"):
    module = import_module(f"psvit{name}")
    assert module.__file__.startswith(sys.prefix), f"{module.__name__} comes from {module.__file__}"
owners = packages_distributions()
for name, owner in {"psvit": "psvit-search", "retrain": "retrain", "ablate": "ablate"}.items():
    assert set(owners[name]) == {owner}, (name, owners[name])
assert "search" not in sys.modules and "conf" not in sys.modules
PYTHON
tiny=(recipe.epochs=1 recipe.warmup_epochs=0)
torchrun=(python -m torch.distributed.run --standalone --nproc-per-node 2)
export OMP_NUM_THREADS=1
last psvit-search space 1d_mini_4 --flops 4M
last python -m psvit space 1d_mini_4 --flops 4M
last "${torchrun[@]}" --no-python psvit-search train-supernet "${tiny[@]}"
last "${torchrun[@]}" -m psvit random --flops 4M search.trials=4 search.baseline=1
last python -m psvit rank --archs 3 --flops 4M jobs=2 "${tiny[@]}" # each network in a process of its own, by spawn

say "a stranger's mypy --strict sees the types"
cat >three_lines.py <<'PYTHON'
from psvit.retrain.config import RetrainConfig
from psvit.retrain.train import retrain
from psvit.search.config import SearchRunConfig
from psvit.search.run import search

reveal_type(search(SearchRunConfig()))
reveal_type(retrain(RetrainConfig()))
retrain("arch.json")
PYTHON
"$python" -m mypy --strict --no-incremental --python-executable "$work/venv/bin/python" three_lines.py >types.txt || true
cat types.txt
grep -q 'Revealed type is "psvit.search.run.SearchResult | None"' types.txt || fail "search is not typed"
grep -q 'Revealed type is "psvit.retrain.train.RetrainResult"' types.txt || fail "retrain is not typed"
grep -q 'three_lines.py:8: error: Argument 1 to "retrain" has incompatible type "str"' types.txt || fail "a wrong call passes"
grep -q 'Found 1 error in 1 file' types.txt || fail "more than the wrong call is refused"

say "the editable install, in the same folder"
last "$python" -m psvit space 1d_mini_4 --flops 4M
last "$(dirname "$python")/psvit-search" space 1d_mini_4 --flops 4M
