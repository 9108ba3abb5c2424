# make setup   a virtual environment in .venv with everything (the first time: minutes, 5 GB of torch)
# make demo    the whole chain on synthetic patients, ending in runs/demo/report.html
# make test    all tests; more of them where real data lies in ../shared/data
# make search  the tests of laws alone, on many examples that were never tried before (half an hour)
# make check   format, lint, types, and who may import whom
# make faults  docs/faults.md, from the tests whose names carry the row of a fault
# make fuzz    100,000 mutated volumes and records: refused, or read as they are (an hour)
# make kill    200 kills of trainings, stores, scoring and grids, which must end as if left in peace (an hour)
# make mutants faults planted in losses, sampling, layouts, metrics and orientation, for the tests to find (hours)
# make load    10,000 volumes in a tree, 3,000 slices in a volume, 100,000 foreign files
# make stops   how long SIGTERM takes to end a command in its slowest phases, which may be five seconds
# make audit   known holes of what is installed; it asks the package index, so it is no part of make check
# make test-oldest   all tests with the lowest versions that pyproject.toml allows (another 5 GB)
# make locked  .venv from .ci/locked.txt: the very versions this was tested with, every file by its SHA-256
# make lock    .ci/locked.txt anew, from pyproject.toml and what the index has today
# make help-texts   what every command prints on --help, stored where it is read at once
# make bench   ratios against bounds and peers, into benchmarks/results.md (half an hour)
# make scorer CT=ct OPENKBP=openkbp   the weights of the package, from the scans named in their model card (hours)

VENV ?= .venv
PYTHON ?= python3
export PATH := $(abspath $(VENV))/bin:$(PATH)
DEMO = runs/demo

OLDEST = .venv-oldest

.PHONY: setup demo test search check faults fuzz kill mutants load stops audit locked lock test-oldest help-texts bench scorer

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@

test: setup
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadgroup

search: setup
	OMP_NUM_THREADS=1 python -m pytest -n 2 --timeout 0 --hypothesis-profile search $$(grep -rl --include='test_*.py' hypothesis tests)

check: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports

faults: setup
	python -m tests.faults_page

fuzz: setup
	OMP_NUM_THREADS=1 python -m tests.fuzz --inputs 100000 --out runs/fuzz

kill: setup
	OMP_NUM_THREADS=1 python -m tests.kill --kills 40 --out runs/kill

mutants: setup
	OMP_NUM_THREADS=1 python -m tests.mutants

load: setup
	python benchmarks/load.py

stops: setup
	python benchmarks/stops.py

audit: setup
	python -m pip install --quiet pip-audit
	pip-audit --strict --skip-editable

locked:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement .ci/locked.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(VENV)/.installed

lock: setup
	python -m pip install --quiet uv
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --quiet --no-header --no-annotate --upgrade --output-file .ci/locked.txt

test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --resolution lowest-direct --editable ".[dev]"
	PATH=$(abspath $(OLDEST))/bin:$$PATH OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadgroup -o filterwarnings=default

# Each line is what a user would type.
demo: setup
	make_phantoms.py $(DEMO)/phantoms --subjects 24 --seed 0 --max-slices 120 --pictures 4 --overwrite
	make_phantoms.py $(DEMO)/lesions --subjects 1 --seed 1 --matrix 192 --deeplesion --lesion-patients 60 --lesion-mm 40 --lesion-kinds lung liver --overwrite
	train_ubr.py --preset demo --data $(DEMO)/phantoms/ct --holdout_fraction 0.2 --out $(DEMO)/ubr --overwrite
	score_volumes.py $(DEMO)/phantoms/ct --checkpoint $(DEMO)/ubr/checkpoints/best.safetensors --out $(DEMO)/scores --overwrite
	evaluate_scores.py $(DEMO)/scores --labels $(DEMO)/phantoms/ct/slice_classes.csv --out $(DEMO)/evaluation
	deeplesion_to_coco.py $(DEMO)/lesions/deeplesion/DL_info.csv --images $(DEMO)/lesions/deeplesion/Images_png --out $(DEMO)/coco --overwrite
	export_backbone.py $(DEMO)/ubr/checkpoints/best.safetensors $(DEMO)/export/ubr.safetensors --layout ubr --overwrite
	compare_inits.py --preset demo --coco $(DEMO)/coco --images $(DEMO)/lesions/deeplesion/Images_png --ubr $(DEMO)/export/ubr.safetensors --inits random ubr --seeds 0 1 --title "Demo on synthetic patients" --ubr-run $(DEMO)/ubr --scores $(DEMO)/scores --pictures $(DEMO)/phantoms/pictures/*.png --out $(DEMO)/compare --overwrite
	cp $(DEMO)/compare/report.html $(DEMO)/report.html
	@echo "look at $(DEMO)/report.html"

help-texts: setup
	python -m tests.help_texts

bench: setup
	python benchmarks/bench.py

SCORER = runs/scorer
PHANTOMS = $(SCORER)/phantoms/ct
TRAIN_SCORER = train_ubr.py --preset scorer --data $(CT) $(OPENKBP) $(PHANTOMS) --source_weights 0.3 0.3 0.4 --losses.anchor_weight 2.5 --holdout_fraction 0 --store $(SCORER)/slices
PLACED = $(PHANTOMS)/slice_coordinates.csv $(CT)/landmarks.csv

# 1.44 is what subjects need that were held out of the same two stages (RESULTS.md).
# Two stages: the second takes the lines through the scores of the first as places of OpenKBP's slices.
scorer: setup
	test -d "$(CT)" -a -d "$(OPENKBP)"
	make_phantoms.py $(SCORER)/phantoms --subjects 400 --seed 20 --max-slices 140 --overwrite
	$(TRAIN_SCORER) --anchors $(PLACED) --out $(SCORER)/first
	score_volumes.py $(OPENKBP) --checkpoint $(SCORER)/first/checkpoints/last.safetensors --views 1 --pictures false --out $(SCORER)/first_scores --overwrite
	rm -f $(SCORER)/placed.csv
	place_slices.py $(SCORER)/first_scores --out $(SCORER)/placed.csv
	$(TRAIN_SCORER) --anchors $(PLACED) $(SCORER)/placed.csv --start $(SCORER)/first/checkpoints/last.safetensors --optimiser.lr 0.0005 --out $(SCORER)/second
	calibrate_scorer.py $(SCORER)/second/checkpoints/last.safetensors --volumes $(CT) --landmarks $(CT)/landmarks.csv --uncertainty_scale 1.44 --out $(SCORER)/calibration.json --overwrite
	python -m ubr_pretrain.pretrained $(SCORER)/second/checkpoints/last.safetensors --calibration $(SCORER)/calibration.json
