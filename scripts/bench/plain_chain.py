"""SFT -> DPO -> merge -> evaluation as written by hand with TRL, peft, mergekit and lm-eval: nothing of this package.

    python scripts/bench/plain_chain.py sft settings.json      one training, in a process of its own
    python scripts/bench/plain_chain.py all settings.json      the whole chain in this process

What bench_chain.py compares the package with; it writes settings.json. With `compact` in it, TRL leaves out the
logits that no loss needs on a CPU, too, as it does with Triton: so the package can be compared bit by bit.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def train(method: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """One TRL training from a folder to a folder; LoRA ends up merged."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype="auto")
    config, dtype = copy.deepcopy(model.config), model.dtype
    if settings["lora"] is None:
        model.float()
    with open(settings["rows"]) as file:
        rows = [json.loads(line) for line in file]
    trainer = getattr(trl, f"{method}Trainer")(
        model=model,
        args=getattr(trl, f"{method}Config")(**settings["arguments"]),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(target_modules=TARGETS, **settings["lora"]) if settings["lora"] else None,
    )
    trainer.train()
    trained = trainer.model.merge_and_unload() if settings["lora"] else trainer.model
    trained.config = config
    trained.to(dtype).save_pretrained(settings["output"])
    tokenizer.save_pretrained(settings["output"])
    return trained.eval(), tokenizer


def merge(settings: dict[str, Any]) -> tuple[Any, Any]:
    """One merge from mergekit's YAML to a folder, and the model in it."""
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = MergeConfiguration.model_validate(yaml.safe_load(Path(settings["yaml"]).read_text()))
    run_merge(config, settings["output"], MergeOptions(copy_tokenizer=True, write_model_card=False))
    model = AutoModelForCausalLM.from_pretrained(settings["output"], dtype="auto")
    return model, AutoTokenizer.from_pretrained(settings["output"])


def evaluate(model: Any, tokenizer: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """lm-eval on a loaded model."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=settings["batch_size"]),
        tasks=settings["tasks"],
        task_manager=TaskManager(include_path=settings["folder"], include_defaults=False),
        limit=settings["limit"],
        apply_chat_template=True,
        fewshot_as_multiturn=True,
    )
    return dict(results["results"])


def main() -> None:
    """Do one step, or all of them and leave the scores in scores.json."""
    step, file = sys.argv[1:]
    settings = json.loads(Path(file).read_text())
    if settings["compact"]:
        from trl.trainer import utils

        vars(utils)["_use_triton"] = lambda device: True
    if step != "all":
        train(step.upper(), settings[step])
        return
    scores = []
    for step in ("sft", "dpo", "merge"):
        made = merge(settings[step]) if step == "merge" else train(step.upper(), settings[step])
        scores.append(evaluate(*made, settings["evaluation"]))
    Path("scores.json").write_text(json.dumps(scores, default=str))


if __name__ == "__main__":
    main()
