# Every target does its own set-up. Without make: run the scripts themselves.
.PHONY: demo test lint types bench torture simulation docs

# make demo DESTINATION=salesforce: another destination
demo:
	@scripts/demo --destination $(or $(DESTINATION),hubspot)

# make test ONLY="not servers": some of them, by their markers (pyproject.toml); JOBS=2: in so many processes
test:
	@scripts/test $(if $(ONLY),-m "$(ONLY)") $(if $(JOBS),-n $(JOBS))

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

# make torture KILLS=1000: the long form
torture:
	@scripts/torture --kills $(or $(KILLS),100)

# make simulation SEEDS=20000 FROM=1000000: the long form, in as many processes as there are cores
simulation:
	@scripts/setup
	@.venv/bin/python -m tests.simulation --seeds $(or $(SEEDS),1000) --from $(or $(FROM),0)

docs:
	@scripts/docs
