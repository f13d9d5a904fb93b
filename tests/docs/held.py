"""What holds each command of the documents: typed here, run by a test that is named, or only marked for the reader.

A command stands here as in its document, without its comment. Commands of pytest hold themselves: they have to choose
tests that there are. Of `python -m benchmarks.NAME` the arguments are parsed, and PROGRAMS names the test that runs the
program small. docs/decisions.md is held more loosely: its commands are parsed, and need no line here.
"""

from __future__ import annotations

# Typed as they stand, in a folder with a small finished run; what each says.
TYPED = {
    "mlx-ssd doctor": "working set",
    "mlx-ssd run mac-4b-instruct --dry-run": "# sample: start",
    "mlx-ssd run runs/NAME/recipe.yaml": "difference in points",
    'mlx-ssd plan mac-4b-instruct --memory-gb 24 --chip "M4 Pro"': "training takes rows of",
    "mlx-ssd report RUN": "difference in points",
    "mlx-ssd report RUN --open": "report.html",
    "mlx-ssd report RUN --compare OTHER …": "Side by side: runs/quickstart/compare.html",
    "mlx-ssd report RUN --compare RUN …": "Side by side: runs/quickstart/compare.html",
    "mlx-ssd analyze RUN": "tail mass",
    "mlx-ssd analyze runs/quickstart": "tail mass",
    "mlx-ssd analyze runs/quickstart --texts mine.jsonl --out mine": "of 2 texts",
    "mlx-ssd export runs/quickstart --target adapter": "; in runs/quickstart/export/adapter",
    "mlx-ssd export RUN --target preset": "preset: pass",
    'python RUN/export/preset/ssd_sampler.py MODEL "Write a function that reverses a string."': "",
    'mlx_lm.generate --model MODEL --adapter-path runs/NAME/round-1/adapter --system-prompt "…" '
    """--chat-template-config '{"enable_thinking": false}' --temp 0.9 --top-p 0.8 --top-k 20 --max-tokens 4096 """
    '--prompt "…"': "==========",
}

# Run by another test; the arguments as they stand are parsed by the real command.
SUITES, PLAN, BENCH = "tests/suites/test_documented.py", "tests/planning/test_plan.py", "tests/bench/test_command.py"
EXPORT, COREAI = "tests/export/test_command.py", "tests/export/coreai/test_coreai.py"
WHOLE_RUN = "tests/test_run.py::test_finished_run_has_every_file_of_the_layout"
FRONTIER = "tests/bench/test_frontier.py::test_one_table_one_plot_and_what_they_say"
OWN_PROMPTS = "tests/stages/test_own_prompts.py::test_every_prompt_was_sampled_and_trained_on"
PARITY = "tests/parity/test_parity.py::test_every_row_of_the_embedded_model_passes"
CALIBRATION = "tests/planning/test_calibration.py::test_measured_once_for_the_same_work_on_the_same_machine"
COREML = "tests/export/coreml/test_target.py::test_the_packages_logits_are_the_students_in_that_precision"
EIGHT_GB = "tests/planning/test_run.py::test_the_impossible_is_refused_before_anything_is_asked_for_or_written"
ROWS = f"{BENCH}::test_a_run_gives_a_row_a_way_and_the_ratios"
ROUNDS = "tests/rounds/test_run.py"
WORKERS = "tests/distributed/test_ranks.py::test_two_ranks_draw_what_one_draws"
JOINING = "tests/distributed/test_worker.py::test_the_commands_say_what_is_missing_in_one_sentence"
SERVED = "tests/serving/test_run.py::test_the_sample_stage_asks_the_server_and_keeps_the_key_to_itself"
BY_TEST = {
    "mlx-ssd run": WHOLE_RUN,
    "mlx-ssd run quickstart": WHOLE_RUN,
    "mlx-ssd run mac-4b-instruct": EIGHT_GB,
    "mlx-ssd run own-code --set problems.train.path=prompts.jsonl --set problems.test.path=held-out.jsonl": OWN_PROMPTS,
    "mlx-ssd run … --set 'problems.train={source: rstar_coder, path: rstar/seed_sft}'": (
        "tests/problems/test_rstar_parquet.py::test_parquet_gives_what_jsonl_gives"
    ),
    "mlx-ssd run … --set 'problems.test={source: livecodebench, path: lcb}'": (
        "tests/test_run.py::test_livecodebench_from_its_own_files"
    ),
    "MLX_SSD_BLAS=bundled mlx-ssd run": WHOLE_RUN,
    'mlx-ssd try runs/own-code "Reverse a string."': "tests/test_cli.py::test_try_shows_base_and_students",
    "mlx-ssd plan mac-4b-instruct": f"{PLAN}::test_text_shows_every_part_and_stage",
    "mlx-ssd plan mac-4b-instruct --hours 8 --write night.yaml": f"{PLAN}::test_a_written_recipe_is_the_plan",
    "mlx-ssd plan own-code --set problems.train.path=prompts.jsonl --json": f"{PLAN}::test_json",
    "mlx-ssd plan quickstart": CALIBRATION,
    "mlx-ssd plan mac-4b-instruct --calibrate": CALIBRATION,
    "mlx-ssd plan RECIPE --memory-gb GB --chip CHIP --hours 8": (
        "tests/planning/test_documented.py::test_the_documented_sizes_are_what_is_computed"
    ),
    "mlx-ssd probe embedded": "tests/probing/test_probe.py::test_probe_of_the_embedded_model",
    "mlx-ssd probe MODEL|RECIPE": "tests/probing/test_probe.py::test_probe_of_the_embedded_model",
    "mlx-ssd train RUN": "tests/stages/test_kill.py::test_killed_stage_resumes_to_the_same_result",
    "mlx-ssd analyze RUN --texts FILE --out DIR": "tests/stages/test_analyze.py::test_own_texts",
    "mlx-ssd analyze --toy": "tests/analysis/test_toy.py::test_the_command",
    "mlx-ssd export RUN --target NAME": f"{EXPORT}::test_in_processes_of_their_own",
    "mlx-ssd export runs/quickstart --all": f"{EXPORT}::test_all_goes_on_with_what_is_missing",
    "mlx-ssd export runs/quickstart --target mlx --precision 8bit": f"{EXPORT}::test_where_it_is",
    "mlx-ssd export runs/quickstart --target mlx --check": f"{EXPORT}::test_check_writes_nothing",
    "mlx-ssd export runs/quickstart --target coreml": COREML,
    "mlx-ssd export runs/quickstart --target coreml --precision int4": COREML,
    "mlx-ssd export RUN --target coreai": f"{COREAI}::test_a_file_computes_what_the_student_does",
    "mlx-ssd parity RUN": PARITY,
    "mlx-ssd bench embedded": ROWS,
    "mlx-ssd bench MODEL --plot FILE": ROWS,
    "mlx-ssd bench runs/quickstart --bits 4,8,32 -p 128,512 -n 64": ROWS,
    "mlx-ssd bench --compare model-a/ model-b/ -r 10": ROWS,
    "mlx-ssd bench runs/quickstart --adapter off,fused --compare -r 10": ROWS,
    "mlx-ssd frontier runs/quickstart larger-model/": FRONTIER,
    "mlx-ssd frontier RUN LARGER…": FRONTIER,
    "mlx-ssd frontier runs/quickstart larger/model -p 128 -n 64": FRONTIER,
    "mlx-ssd frontier runs/quickstart larger/model -p 128 -n 64 -r 40": FRONTIER,
    "mlx-ssd grade answers.jsonl --problems problems.jsonl": f"{SUITES}::test_grade",
    "mlx-ssd grade answers.jsonl --problems problems.jsonl --out grades.jsonl --json": f"{SUITES}::test_grade",
    "mlx-ssd grade samples.jsonl --suite humaneval --problems HumanEval.jsonl.gz": f"{SUITES}::test_grade",
    "mlx-ssd eval runs/quickstart --suite humaneval --samples 5": f"{SUITES}::test_eval",
    "mlx-ssd eval runs/quickstart --suite embedded-validation --controls --json": f"{SUITES}::test_eval",
    "mlx-ssd eval mlx-community/Qwen3-4B-Instruct-2507-4bit --suite mbpp --temperature 0.7 --top-k 20 --top-p 0.8": (
        f"{SUITES}::test_eval"
    ),
    "mlx-ssd run RECIPE --set rounds=3": f"{ROUNDS}::test_one_more_round_keeps_what_there_is",
    "mlx-ssd run RECIPE --set rounds=auto": f"{ROUNDS}::test_each_round_is_made_of_the_one_before",
    "export MLX_SSD_SECRET=$(openssl rand -hex 16)": WORKERS,
    "mlx-ssd run RECIPE --workers-at 0.0.0.0:7070": JOINING,
    "mlx-ssd work FIRST:7070": WORKERS,
    "mlx-ssd work 169.254.…:7070": WORKERS,
    "mlx-ssd run RECIPE --set sample.engine=server --set sample.server.url=http://HOST:8000": SERVED,
    "mlx-ssd run my.yaml --set sample.engine=server --set sample.server.url=http://big-machine:8000": SERVED,
    "python3 -m venv .venv": "tests/docs/test_commands.py::test_a_virtual_environment",
    "source .venv/bin/activate": "tests/docs/test_commands.py::test_a_virtual_environment",
    "python -m tests.docs.synopsis": "tests/docs/test_synopsis.py::test_the_page_is_what_the_commands_say",
    "python -m tests.planning.test_documented": (
        "tests/planning/test_documented.py::test_the_documented_sizes_are_what_is_computed"
    ),
}

# Not run by any test: what keeps it from that stands beside it in the document, in these words.
MARKED = {
    "make run": "minutes",
    "make test": "minutes",
    "make test TEST_EXTRAS=test,parity": "minutes",
    "make mac-check": "mac",
    "mlx-ssd run mac-4b-check": "mac",
    "mlx-ssd run mac-4b-instruct --hours 8": "mac",
    "mlx-ssd frontier runs/mac-4b-instruct mlx-community/Qwen3-8B-4bit": "mac, network",
    "MLX_SSD_BLAS=bundled mlx-ssd sample RUN --set problems.train.limit=384": "minutes",
    "ruff check mlx_ssd tests benchmarks": "needs ruff",
    "pip install -e '.[test]'": "network",
    "pip install -e '.[parity]'": "network",
    "pip install -e '.[coreml]'": "network",
    "pip install -e '.[coreai]'": "network",
    "pip install -e '.[test,browser]'": "network",
    "pip install -e '.[parity,coreml,coreai,gguf]'": "network",
    "apt install libopenblas0-pthread": "network",
    "apt-get install --no-install-recommends chromium fonts-dejavu-core": "network",
    "hf download microsoft/rStar-Coder --repo-type dataset --revision 9c523c22b51de15b03b73e102e49d6d42e1cb353"
    " --include 'seed_sft/*' --local-dir rstar": "network",
    "hf download livecodebench/code_generation_lite test6.jsonl --repo-type dataset --local-dir lcb"
    " --revision 0fe84c3912ea0c4d4a78037083943e8f0c4dd505": "network",
    "llama-cli -m RUN/export/gguf/model.gguf --jinja -sys \"…\" -p '...'": "needs llama.cpp",
    "echo FROM RUN/export/gguf/model.gguf > Modelfile": "needs Ollama",
    "ollama create student -f Modelfile": "needs Ollama",
    "ollama show --template student": "needs Ollama",
}

# `python -m NAME`: the test that runs the program, or most of it, on something small; None where there is none.
OF = "tests/benchmarks"
PROGRAMS = {
    "benchmarks.analysis": None,
    "benchmarks.bench_rival": None,
    "benchmarks.cost": None,
    "benchmarks.effect": f"{OF}/test_effect.py::test_rows_of_a_run_are_its_latest_grades_in_the_order_of_the_problems",
    "benchmarks.embedded_model.build": f"{OF}/test_embedded_model.py::test_shipped_problems_regenerate_bit_equal",
    "benchmarks.exports": None,
    "benchmarks.gradients": None,
    "benchmarks.grading": f"{OF}/test_grading.py::test_rows_are_appended_rendered_and_measured",
    "benchmarks.hostile": "tests/grading/test_hostile.py::test_hostile",
    "benchmarks.humaneval_mutants": "tests/grading/test_humaneval.py::test_mutants_that_are_proven_wrong_are_rejected",
    "benchmarks.labels": f"{OF}/test_labels.py::test_a_finished_run",
    "benchmarks.planning": f"{OF}/test_planning.py::test_lengths_have_the_mean_and_the_limit_that_the_plan_is_told",
    "benchmarks.quantizer": None,
    "benchmarks.ranks": f"{OF}/test_ranks.py::test_what_is_lost_doubled_or_different_is_found",
    "benchmarks.reference_answers": None,
    "benchmarks.reliability": None,
    "benchmarks.sampler": f"{OF}/test_sampler.py::test_both_draw_a_token_a_row_and_are_timed",
    "benchmarks.sampling": f"{OF}/test_sampling.py::test_rows_are_appended_and_rendered",
    "benchmarks.schedules": f"{OF}/test_schedules.py::test_rows_of_a_run",
    "benchmarks.screenshots": None,
    "benchmarks.serving": f"{OF}/test_serving.py::test_missing_and_doubled_samples_are_counted",
    "benchmarks.stand_ins": "tests/stand_ins/test_smollm2.py::test_language_model_predicts_english",
    "benchmarks.training": f"{OF}/test_training.py::test_rows_are_appended_rendered_and_measured",
    "benchmarks.training_memory": f"{OF}/test_training_memory.py::test_a_step_takes_what_is_predicted",
    "tests.sampling.divergence": "tests/sampling/test_engine.py::test_openblas_every_divergence_is_at_a_boundary",
}
