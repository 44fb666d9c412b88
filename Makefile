# The verbs of the course; `make` alone lists them. Without make, `python -m course` runs the same ones.
# `make report` and `make test` start from nothing but Python 3.11: they make .venv, and install LaTeX if they may.

PY := .venv/bin/python
# Compiled modules are kept, whatever the caller's settings: without them every process imports for some seconds more.
export PYTHONDONTWRITEBYTECODE :=
.DEFAULT_GOAL := help
.PHONY: help report test record smoke bench gpu status notebooks try site badges lint setup venv latex

help:
	@echo "make VERB, where VERB is one of:"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

report: ## re-execute every notebook and compile report/report.pdf
	@$(MAKE) --no-print-directory -j2 .venv/.ready latex
	@$(PY) -m course report

test: ## unit tests, strict and smoke runs of every notebook, the report's tests
	@$(MAKE) --no-print-directory -j2 .venv/.ready latex LATEX=optional
	@$(PY) -m course test $(if $(JOBS),--jobs $(JOBS))

record: .venv/.ready ## train what the notebooks declare and the record lacks (STUDY=name JOBS=n SEEDS=n SCHEDULER=tcp://...)
	@$(PY) -m course record $(if $(STUDY),--study $(STUDY)) $(if $(JOBS),--jobs $(JOBS)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SCHEDULER),--scheduler $(SCHEDULER))

smoke: .venv/.ready ## rehearse: retrain everything, tiny, on the embedded digits, into a temporary record
	@$(PY) -m course smoke $(if $(JOBS),--jobs $(JOBS))

bench: .venv/.ready ## run the benchmarks, print a table of ratios, write data/bench.json (BENCH=name)
	@$(PY) -m course bench $(BENCH)

gpu: .venv/.ready ## on a machine with a GPU: its tests, its benchmarks, the record; elsewhere, list these steps
	@$(PY) -m course gpu

status: .venv/.ready ## list every study, and how much of it is recorded
	@$(PY) -m course status

notebooks: .venv/.ready ## re-execute the notebooks in place
	@$(PY) -m course notebooks $(if $(JOBS),--jobs $(JOBS))

try: .venv/.ready ## train on a folder of your own pictures, and write a page about it (FOLDER=path OUT=page.html SEEDS=n EPOCHS=n)
	@$(PY) -m course try $(if $(FOLDER),"$(FOLDER)") $(if $(OUT),--out "$(OUT)") \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(EPOCHS),--epochs $(EPOCHS))

site: .venv/.ready ## build the course as a website that works offline, in build/site
	@$(PY) -m course site

badges: .venv/.ready ## point badges, set-up cells and README at git's origin on GitHub, or as helpers/settings.py says
	@$(PY) -m course badges

lint: .venv/.ready ## ruff over everything
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

# What takes long to import is compiled here, so that the first command to come does not wait for it.
LONG := torch._dynamo,torchvision course.site,myst_nb,pydata_sphinx_theme,ipykernel.kernelapp,openTSNE,seaborn
setup: ## only make .venv and install LaTeX
	@$(MAKE) --no-print-directory -j2 .venv/.ready latex
	@printf '%s\n' $(LONG) | xargs -P 2 -I {} $(PY) -c "import {}"

# What follows makes .venv and LaTeX. $(call apt,PACKAGES) installs with apt as root or with a sudo that asks nothing;
# it fails where it can do neither, and shows what apt said if that failed.
apt = command -v apt-get >/dev/null && if [ "$$(id -u)" = 0 ]; then may=; else may="sudo -n"; $$may true 2>/dev/null; fi \
  && log=$$(mktemp) && { { $$may apt-get update -qq && $$may env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends $(1); } >"$$log" 2>&1 || { tail -n 5 "$$log" >&2; false; }; }

# A .venv whose Python or pip does not start (half made, or its Python is gone) is made anew.
$(shell $(PY) -c "import pip" 2>/dev/null || rm -f .venv/.ready)
venv:
	@if $(PY) -c "import pip" 2>/dev/null; then exit 0; fi; \
	found=; for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do \
	  if "$$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "The course needs Python 3.11 or newer and finds none; install one (Debian: apt install python3) or name it: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	if ! "$$found" -c "import venv, ensurepip" 2>/dev/null; then \
	  { $(call apt,python3-venv); } && "$$found" -c "import venv, ensurepip" 2>/dev/null || { \
	    echo "This Python cannot make environments; install its venv module (Debian: apt install python3-venv), then run make again" >&2; \
	    exit 1; \
	  }; \
	fi; \
	echo "Making .venv with $$("$$found" --version)"; "$$found" -m venv --clear .venv

# uv installs the same wheels in a third of the time; where it cannot (it does not read pip's own settings), pip does.
.venv/.ready: pyproject.toml constraints.txt | venv
	@echo "Installing the Python packages (about 5 GB, most of it PyTorch) into .venv"
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt uv 2>/dev/null \
	  && $(PY) -m uv pip install -q --python $(PY) -c constraints.txt -e ".[dev,cluster,site]" \
	  || { echo "uv could not; trying pip"; false; } \
	  || $(PY) -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev,cluster,site]"
	@touch $@

# One file of each package in apt.txt stands for it. The order after venv keeps two apt-get apart.
latex: | venv
	@if command -v latexmk >/dev/null && command -v pdflatex >/dev/null \
	  && [ "$$(kpsewhich natbib.sty booktabs.sty siunitx.sty lmodern.sty titlesec.sty phvr8t.tfm | wc -l)" -eq 6 ]; then exit 0; fi; \
	echo "Installing LaTeX"; \
	{ $(call apt,$$(cat apt.txt)); } || { \
	  echo "LaTeX is missing and cannot be installed from here. Debian, Ubuntu: sudo apt-get install $$(tr '\n' ' ' < apt.txt)- elsewhere: TeX Live with latexmk" >&2; \
	  [ "$(LATEX)" = optional ]; \
	}
