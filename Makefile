# Each target does its own set-up: the virtual environment and what stands in it are made by devtools/venv.sh, once.
# `make` alone lists the targets. Variables: PYTHON (3.11 or newer), CHARALORA_CACHE (where large downloads are kept), WORKERS (test
# processes, 2), PYTEST (more arguments for pytest), SIZES and RUNNING (how many resources and trainings bench-operator has).

.DEFAULT_GOAL := help
.PHONY: help demo test check proof bench bench-best bench-operator fuzz soak generate lock clean venv cluster-up cluster-down cluster-status
SHELL := bash
VENV := .venv/bin/python
PYTEST ?=
WORKERS ?= 2
# At their imports both advise programmers of optional packages, over what is to be read.
export TRANSFORMERS_VERBOSITY ?= error
export DIFFUSERS_VERBOSITY ?= error

help: ## Print this list.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv ## Train the demo's character by one kubectl apply on a real Kubernetes of this machine, and say where the report lies.
	@$(VENV) devtools/demo.py

# Two processes with one thread each are faster than one with two. What needs nodes and pods follows: most of it has namespaces of its own and
# waits most of the time, so it runs beside each other, the longest files first; what is marked `alone` needs the cluster for itself.
# What takes minutes on a new machine (Kubernetes from source, the images) is made before, where no test waits for it.
LONGEST := $(sort $(wildcard tests/cluster/test_reasons_*.py)) tests/cluster/test_nodes.py
BESIDE := $(LONGEST) $(filter-out $(LONGEST),$(sort $(wildcard tests/cluster/test_*.py)))
test: export OMP_NUM_THREADS = 1
test: check ## Run every test, after `make check`; a GPU is not needed.
	@rm -f build/faults.json
	@$(VENV) devcluster/binaries.py > /dev/null
	@$(VENV) -m pytest -n $(WORKERS) --dist loadfile --durations 10 --ignore tests/cluster $(PYTEST)
	@test -n "$$CLUSTER" || $(VENV) devcluster/cluster.py images > /dev/null
	@$(VENV) -m pytest -n $$(($(WORKERS) + 1)) --dist loadfile --no-loadscope-reorder --durations 10 -m "not alone" $(BESIDE) $(PYTEST)
	@$(VENV) -m pytest --durations 10 -m alone tests/cluster $(PYTEST)
	@test -n "$(PYTEST)" || $(VENV) devtools/faultmatrix.py

fuzz: venv ## Try what reads input from outside with what a fuzzer thinks of, MINUTES (5) for each reader; ends at the first finding.
	@for target in $$($(VENV) tests/fuzz/run.py list); do echo "$$target"; $(VENV) tests/fuzz/run.py $$target $(or $(MINUTES),5) || exit 1; done

check: venv ## Check format, lint, types, import contracts and generated files; seconds.
	@$(VENV) -m ruff format --check --quiet .
	@$(VENV) -m ruff check --quiet .
	@$(VENV) -m mypy operator trainer_image tests devtools devcluster examples benchmarks
	@$(VENV) -c 'from importlinter.cli import lint_imports_command as lint; lint(["--no-logo"])'
	@$(VENV) devtools/generate.py --check

proof: venv ## Prove that training learns the character: several trainings, judged independently; it takes long.
	@$(VENV) benchmarks/proof.py

bench: venv ## Measure training steps against the plain diffusers, peft and accelerate loop, side by side.
	@$(VENV) benchmarks/trainer.py

bench-operator: venv ## Measure how many trainings one operator carries, beside a plain client; ten minutes, SIZES="100" for less.
	@$(VENV) devcluster/binaries.py > /dev/null
	@$(VENV) benchmarks/load.py $(if $(SIZES),--sizes $(SIZES)) $(if $(RUNNING),--running $(RUNNING))

bench-best: venv ## Compare the step that a training chooses with its last one, as a judge sees both, over ten characters; it takes long.
	@$(VENV) benchmarks/best_step.py

MINUTES ?= 30
soak: venv ## Do random faults to a stream of small trainings for MINUTES (30), and check that every end is true and nothing is left.
	@$(VENV) benchmarks/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

cluster-up: venv ## Start a real Kubernetes with two nodes on this machine, without Docker, and bring our images to it; needs root on Debian.
	@$(VENV) devcluster/cluster.py up
	@$(VENV) devcluster/cluster.py images

cluster-down: venv ## End the development cluster and remove every trace of it.
	@$(VENV) devcluster/cluster.py down

cluster-status: venv ## Say what of the development cluster runs, and where it answers.
	@$(VENV) devcluster/cluster.py status

generate: venv ## Write the files that are made from models and tests: the CRD, docs/reference.md, docs/faults.md.
	@$(VENV) devtools/generate.py

lock: venv ## Pin every dependency again, with hashes, from pyproject.toml.
	@$(VENV) devtools/lock.py

clean: ## Remove what was built here; the cache of downloads stays.
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

venv:
	@devtools/venv.sh
