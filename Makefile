# `make help` lists the targets. PYTHON=... uses another environment than .venv, which is then not
# set up here.
PYTHON ?= .venv/bin/python
BIN = $(dir $(PYTHON))
DEMO_DIR ?= egs/mini/asr1/exp/demo
# Of the demo: transformer, or one with configs of its own in egs/mini/asr1/conf.
ENCODER ?= transformer
DEMO_CONFIGS = $(if $(filter-out transformer,$(ENCODER)),--asr_config conf/train_asr_$(ENCODER).yaml \
	--pretrain_config conf/pretrain_$(ENCODER).yaml)
# One process a core, one thread a process.
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist worksteal
SHELL_FILES = $(shell git ls-files --cached --others --exclude-standard '*.sh' .ci/run tests/shell/fake_python)

.PHONY: help setup demo kernels test test_slow test_sanitized lint format clean

help:  ## this list
	@sed -n 's/^\([a-z_]*\):.*## */  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup:  ## .venv with all that recipes, tests and lint need (tools/setup.sh --help)
ifeq ($(PYTHON),.venv/bin/python)
	@env -u PYTHON tools/setup.sh
endif

DEMO = PYTHON=$(abspath $(PYTHON)) egs/mini/asr1/run.sh --datadir $(DEMO_DIR)/data \
		--dumpdir $(DEMO_DIR)/dump --expdir $(DEMO_DIR)/exp --results_dir $(DEMO_DIR) \
		$(DEMO_CONFIGS) $(DEMO_ARGS)
DEMO_BITS = $(if $(filter --stop_stage% --skip_stages% --list% --dry_run%,$(DEMO_ARGS)),,w8a8 w1a8)

demo: setup  ## egs/mini from nothing to the tables of WER and cost, in 16, 8 and 1 bits, in DEMO_DIR; ENCODER=NAME: transformer, conformer, squeezeformer, sparseformer
	$(DEMO)
	set -e; for bits in $(DEMO_BITS); do \
		$(DEMO) --stage quantize --quantize_config conf/quantize_$$bits.yaml; done
	@sed '/^## asr_/,$$d' $(DEMO_DIR)/RESULTS.md
	@test -z "$(DEMO_BITS)" || { echo "what the 1-bit model hears in three recordings of test:"; \
		PYTHONPATH=. $(PYTHON) -m espnet_lite.bin.transcribe $(DEMO_DIR)/exp/asr_*/model_w1a8.esp \
		$$(awk 'NR <= 3 {print $$2}' $(DEMO_DIR)/dump/test/wav.scp); }
	@echo "all of it, with every utterance: $(DEMO_DIR)/exp/report.html"

kernels: setup  ## compile the C++ kernels now rather than when they are first needed
	PYTHONPATH=. $(PYTHON) -m espnet_lite.bin.build_kernels

test: setup  ## unit tests and tiny recipes, 4 minutes on two cores
	$(PYTEST)

test_slow: setup  ## what takes longer
	$(PYTEST) -m slow

# The sanitizers' libraries must come before all others. CPython itself keeps memory to its end, so leaks
# are not asked for; torch's own code is compiled without and not checked. A report goes to the descriptor
# of stderr and ends the process, so pytest must not capture it. test_build compiles and runs no kernel.
test_sanitized: setup  ## tests of the C++ kernels under AddressSanitizer and UBSan
	ESPNET_LITE_KERNELS_FLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" \
	LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	OMP_NUM_THREADS=2 $(PYTHON) -m pytest -q --capture=sys tests/kernels \
		--ignore tests/kernels/test_build.py

lint: setup  ## ruff, import-linter, shellcheck, shfmt
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	PYTHONPATH=. $(BIN)lint-imports --no-logo
	$(BIN)shellcheck -x $(SHELL_FILES)
	$(BIN)shfmt -i 4 -ci -d $(SHELL_FILES)

format: setup  ## bring Python and shell files into the form that lint asks for
	$(BIN)ruff check --fix .
	$(BIN)ruff format .
	$(BIN)shfmt -i 4 -ci -w $(SHELL_FILES)

clean:  ## remove caches and the demo; .venv and what recipes wrote stay
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis build
	rm -rf $(DEMO_DIR)
	find espnet_lite tests tools egs -name __pycache__ -type d -prune -exec rm -rf {} +
