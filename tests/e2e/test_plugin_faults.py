"""An installed plugin that fails is named, and the run resumes once it is fixed."""


def test_the_command_line_names_the_plugin_and_the_run_resumes(shell, recipe):
    text = recipe[: recipe.index("[model]")] + (
        '[generate]\nsamples = 2\nmodel = { use = "parrot", breaks = 4 }\n'
        '[grade]\nuse = "believer"\n'
    )
    said = shell.run(shell.write(text), "--until", "generate", code=1)
    assert (
        "error: Backend 'parrot' of swebench-trainer-example 0.3.1 failed in sample: "
        "LookupError: the parrot has flown (swebench_trainer_example.py, line "
    ) in said
    assert "the same command resumes the run" in said
    kept = shell.rows("generate", "candidates.jsonl")
    assert len(kept) == 4
    log = shell.folder / "runs/small/logs/attempt_1/swebench-train.log"
    assert "Traceback" in log.read_text()
    shell.run(shell.write(text.replace("breaks = 4", "breaks = 0")))
    assert shell.rows("generate", "candidates.jsonl")[:4] == kept
    assert len(shell.rows("grade", "verdicts.jsonl")) == 6
