"""Open instruction data that keep a model general, one turn each, without a system role.

databricks/databricks-dolly-15k, written by people, CC BY-SA 3.0:
    {"instruction": "When did Virgin Australia start operating?", "context": "Virgin Australia, the trading name ...",
     "response": "Virgin Australia commenced services on 31 August 2000 ...", "category": "closed_qa"}
Intel/orca_dpo_pairs, GPT-4's reply preferred to Llama-2-13b-chat's, Apache-2.0:
    {"system": "You are an AI assistant. ...", "question": "...", "chosen": "...", "rejected": "..."}
"""

from lamdagent.skills.folding import fold
from lamdagent.skills.hub import Row, Rows, load
from lamdagent.skills.skill import turn

DOLLY = ("instruction", "context", "response")
PAIRS = ("system", "question", "chosen", "rejected")


def instructions(source: str = "databricks/databricks-dolly-15k") -> Rows:
    """`sft` rows; the few without a response are left out."""
    rows = load(source, None, "train", DOLLY)
    return [instruction(row) for row in rows if row["instruction"].strip() and row["response"].strip()]


def instruction(row: Row) -> Row:
    """A context stands below its instruction."""
    parts = [row["instruction"].strip(), (row["context"] or "").strip()]
    return turn("\n\n".join(part for part in parts if part), row["response"].strip())


def preferences(source: str = "Intel/orca_dpo_pairs") -> Rows:
    """`preference` rows; those with an empty reply, or with two equal ones, are left out."""
    rows = load(source, None, "train", PAIRS)
    return [pair(row) for row in rows if _usable(row)]


def pair(row: Row) -> Row:
    """The system message, where there is one, stands above the question."""
    system = [{"role": "system", "content": row["system"].strip()}] if (row["system"] or "").strip() else []
    replies = {key: [{"role": "assistant", "content": row[key].strip()}] for key in ("chosen", "rejected")}
    return {"prompt": fold([*system, {"role": "user", "content": row["question"].strip()}]), **replies}


def _usable(row: Row) -> bool:
    texts = [(row[key] or "").strip() for key in ("question", "chosen", "rejected")]
    return all(texts) and texts[1] != texts[2]
