# Every target does its own set-up. Without make: run the scripts themselves.
.PHONY: demo test lint types bench docs

demo:
	@scripts/demo

test:
	@scripts/test

lint:
	@scripts/setup
	@.venv/bin/ruff check -q
	@.venv/bin/ruff format -q --check
	@scripts/imports

types:
	@scripts/setup
	@.venv/bin/mypy --no-error-summary

bench:
	@scripts/setup
	@.venv/bin/python -m benchmarks

docs:
	@scripts/docs
