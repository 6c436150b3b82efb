# Two commands: `make demo [VIDEO=path]` and `make test`. Each sets up everything it needs in .venv first.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out

.PHONY: demo test test-slow lint install benchmark clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; install it or give PYTHON=path" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; give PYTHON=path" >&2; exit 1; }
	@echo "setting up $(VENV) (a few minutes the first time: PyTorch is large)"
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $@

# Without VIDEO the demo explains a clip that the project makes itself: two photographs in conversation.
demo: $(VENV)/.installed
	@mkdir -p $(OUT)
ifdef VIDEO
	@$(BIN)/asd-explain "$(VIDEO)" -o $(OUT) --overwrite
else
	@$(BIN)/python -m asd_explain.datasets.talking_photos --preset demo -o $(OUT) --overwrite
	@$(BIN)/asd-explain $(OUT)/demo.mp4 -o $(OUT) --overwrite
endif

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: lint
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmark: $(VENV)/.installed
	$(BIN)/python tools/benchmark.py $(VIDEO)

clean:
	rm -rf $(OUT) build *.egg-info .pytest_cache .ruff_cache .hypothesis
