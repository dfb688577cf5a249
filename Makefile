# The one task runner. Each target works in an activated virtual environment.
.PHONY: setup test slow lint format bench ci

setup:
	python -m pip install -e '.[all,test]' -c constraints.txt

test:
	python -m pytest

slow:
	python -m pytest -m slow

lint:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format:
	ruff check --fix .
	ruff format .

bench:
	python benchmarks/startup.py
	python benchmarks/build_time.py
	python benchmarks/many_builds.py
	python benchmarks/grid.py
	python benchmarks/forms.py
	python benchmarks/gap.py
	python benchmarks/peers.py

ci:
	bash .ci/run
