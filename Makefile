# The developer manual in one screen. Every verb builds .venv when it is missing or older than pyproject.toml.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all coverage lint fmt wheel-test bench weights general-weights clean
SHELL := bash

# The first Python 3.11 or 3.12 that runs and can make environments; override with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
RUN := $(BIN)/python
PIP := -m pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= out/demo
SCENE ?= scene-2002
TESTFLAGS ?=

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/.python:
	@test -n "$(PYTHON)" || { echo "drivesim needs Python 3.11 or 3.12 with venv (Debian: apt-get install python3-venv)"; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.python pyproject.toml constraints.txt
	@echo "installing drivesim into .venv (a minute or two the first time)"
	$(RUN) $(PIP) -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(RUN) $(PIP) -e '.[dev]'
	@touch $@

demo: .venv/.installed  ## drive an embedded scene with the shipped weights; writes out/demo
	$(BIN)/drivesim rollout --scene $(SCENE) --out $(OUT)
	@echo "watch $(OUT)/rollout.mp4"

test: .venv/.installed-dev  ## the quick tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 -m "not slow" $(TESTFLAGS)

test-all: .venv/.installed-dev  ## every test, the slow ones too
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 $(TESTFLAGS)

coverage: .venv/.installed-dev  ## the quick tests with a coverage gate
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 -m "not slow" --cov --cov-fail-under 85 $(TESTFLAGS)

lint: .venv/.installed-dev  ## format, rules, spelling, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/.installed-dev  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel-test:  ## build the wheel, install it into a fresh environment, use it from an empty folder
	rm -rf build .whl && mkdir -p .whl/empty
	$(PYTHON) -m venv .whl/venv
	.whl/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir .whl .
	.whl/venv/bin/python $(PIP) .whl/*.whl
	cd .whl/empty && ../venv/bin/python -I ../../tests/wheel_smoke.py
	rm -rf build .whl

bench: .venv/.installed  ## the published figures (see benchmarks/README.md)
	$(RUN) -m benchmarks.fidelity --out out/fidelity.json
	$(RUN) -m benchmarks.speed --out out/speed.json
	$(RUN) -m benchmarks.generation --out out/generation.json
	$(RUN) -m benchmarks.reference_speed --out out/reference_speed.json

# Recordings and weights go to out/ in WEIGHTS_HOME; WEIGHTS_FLAGS are more settings of every part, such as
# training.max_minutes=5 or those of a rehearsal (tests/test_weights_recipe.py).
WEIGHTS_HOME ?= .
WEIGHTS_FLAGS ?=
# $(call TRAIN,folder,what,settings)
TRAIN = mkdir -p $(WEIGHTS_HOME) && cd $(WEIGHTS_HOME) && $(abspath $(BIN))/drivesim train $(2) --out out/weights/$(1) \
	$$(test -f out/weights/$(1)/last.ckpt && echo --resume) $(3) $(WEIGHTS_FLAGS)
FROM = $(1)=out/weights/$(2).safetensors

general-weights: .venv/.installed  ## train weights of the kind of general-tiny, in out/weights; goes on where it stopped
	$(call TRAIN,general-tokenizer,tokenizer,experiment=general_tiny training.num_train_steps=6153 training.batch_size=16 \
		training.learning_rate=1.5e-3 training.optimizer=adamw training.ema_decay=0.995)
	$(call TRAIN,general,video-model,experiment=general_tiny $(call FROM,video_model.init,general-tokenizer/tokenizer))

weights: .venv/.installed  ## train weights of the kind of drive-tiny, part after part, in out/weights; goes on where it stopped
	$(call TRAIN,tokenizer,tokenizer,experiment=drive_tiny_tokenizer)
	$(call TRAIN,motion-field,motion-field,experiment=drive_tiny_motion_field $(call FROM,motion_field.init,tokenizer/tokenizer))
	$(call TRAIN,first,world-model,experiment=drive_tiny $(call FROM,world_model.init,motion-field/motion-field))
	$(call TRAIN,imagination,imagination,experiment=drive_tiny_imagination $(call FROM,imagination.init,first/world-model))
	$(call TRAIN,inverse-dynamics,inverse-dynamics,experiment=drive_tiny_inverse_dynamics \
		$(call FROM,inverse_dynamics.tokenizer,tokenizer/tokenizer))
	$(call TRAIN,hazard-head,hazard-head,$(call FROM,hazard_head.samples.weights,imagination/imagination) \
		hazard_head.path=out/data/hazard-of-weights training.num_train_steps=2000 training.max_minutes=null \
		training.learning_rate=1e-3 training.ema_decay=0.995 training.weight_decay=0.05 training.num_threads=1 \
		training.evaluate_every=500)
	$(call TRAIN,driver,policy,training.num_train_steps=5906 training.max_minutes=null training.batch_size=32 \
		training.learning_rate=1.5e-3 training.warmup_steps=200 training.ema_decay=0.995 training.evaluate_every=500 \
		training.num_threads=1 training.precision=32-true)

clean:  ## remove caches and what runs wrote; keeps .venv
	rm -rf build dist out .whl .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov .coverage
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
