"""What other people's tools leave in a store, run by them as they would: TRL, MLflow's transformers flavour, a sweep.

`python tests/others.py PICO` in an empty folder, with MLFLOW_TRACKING_URI set; nothing of this package is used.
"""

import os
import sys
from pathlib import Path


def train(model: str) -> None:
    """A TRL script with report_to=mlflow."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    os.environ["MLFLOW_EXPERIMENT_NAME"] = "their-trainings"
    rows = Dataset.from_list(
        [{"prompt": f"Spell {word}.", "completion": " ".join(word)} for word in ("apple", "cloud")]
    )
    for rate in (1e-3, 1e-2):
        settings = SFTConfig(
            output_dir=f"sft-{rate:g}",
            run_name=f"sft {rate:g}",
            report_to="mlflow",
            learning_rate=rate,
            max_steps=2,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
        )
        trainer = SFTTrainer(model, args=settings, train_dataset=rows)
        trainer.train()
        trainer.save_model()


def log_model(folder: str) -> None:
    """A script with mlflow.transformers.log_model."""
    import mlflow
    from huggingface_hub import ModelCard
    from transformers import AutoModelForCausalLM, AutoTokenizer

    mlflow.set_experiment("their-models")
    parts = {
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }
    with mlflow.start_run(run_name="the good one"):
        mlflow.log_param("recipe", "secret")
        mlflow.transformers.log_model(
            parts,
            name="model",
            task="text-generation",
            model_card=ModelCard("---\n---\n", ignore_metadata_errors=True),
            pip_requirements=["mlflow"],
        )


def sweep() -> None:
    """A sweep written by hand: the higher learning rate is much better, two runs failed, one was stopped."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.create_experiment("their-sweep")
    for number in range(20):
        rate = (0.003, 0.01)[number % 2]
        run = client.create_run(experiment, run_name=f"sweep {number}").info.run_id
        client.log_param(run, "method", "finetune" if number else "prune")
        client.log_param(run, "lr", rate)
        status = {5: "FAILED", 6: "FAILED", 7: "KILLED"}.get(number, "FINISHED")
        if status == "FINISHED":
            client.log_metric(run, "accuracy", 90 + number / 10 if rate == 0.01 else 12 + number / 10)
        client.set_terminated(run, status)


if __name__ == "__main__":
    train(sys.argv[1])
    log_model(str(Path("sft-0.01").absolute()))
    sweep()
