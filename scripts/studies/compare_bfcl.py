#!/usr/bin/env python
"""Our judge of function calls against the code of the benchmark itself, answer by answer.

    python scripts/studies/compare_bfcl.py                 # every item of the categories, too long ones as well
    python scripts/studies/compare_bfcl.py --items 60      # the first so many

The benchmark's decoder and AST checker are taken from the wheel of bfcl-eval as they are. Its dependencies clash with
ours, so what they import but do not need here (handlers of hosted models, parsers of Java and JavaScript) is an empty
module while they are loaded. Each item is answered rightly, and wrongly in every way that we could think of. The last
line is one JSON object with the figures; docs/bfcl.md says what they mean.
"""

import argparse
import ast
import copy
import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from lamdagent.objects.wheels import wheel_files
from lamdagent.tooluse import bfcl
from lamdagent.tooluse.call import Call, literal
from lamdagent.tooluse.checker import judge

CHECKER = "bfcl_eval.eval_checker.ast_eval"
MEMBERS = (
    "bfcl_eval/constants/enums.py",
    "bfcl_eval/constants/type_mappings.py",
    "bfcl_eval/constants/default_prompts.py",
    "bfcl_eval/eval_checker/ast_eval/ast_checker.py",
    "bfcl_eval/eval_checker/ast_eval/type_convertor/java_type_converter.py",
    "bfcl_eval/eval_checker/ast_eval/type_convertor/js_type_converter.py",
    "bfcl_eval/model_handler/utils.py",
    "bfcl_eval/model_handler/parser/json_parser.py",
    "bfcl_eval/model_handler/parser/xml_parser.py",
)
RETRYING = ("retry", "retry_if_exception_message", "retry_if_exception_type", "wait_random_exponential")
EMPTY: dict[str, dict[str, Any]] = {
    "bfcl_eval.constants.model_config": {"MODEL_CONFIG_MAPPING": {"any": SimpleNamespace(underscore_to_dot=False)}},
    "bfcl_eval.model_handler.parser.java_parser": {"parse_java_function_call": None},
    "bfcl_eval.model_handler.parser.js_parser": {"parse_javascript_function_call": None},
    "bfcl_eval.utils": {},
    "tenacity": dict.fromkeys(RETRYING, lambda *_, **__: lambda function: function),
}
"""Modules that are only imported, with the names that are asked of them."""

CODE = (
    "variable",
    "f(x=1)",
    "f(1)",
    "f()",
    "a[0]",
    "a.b",
    "1 + 1",
    "-1",
    "not 1",
    "...",
    "-x",
    "1j",
    "{1, 2}",
    "{'a': b}",
)
"""Values that are no plain literals."""

Judge = Callable[[str, bfcl.Item], bool]


def benchmark() -> Judge:
    """The benchmark's own verdict on a reply, by its own code.

    Raises:
        UserError: the wheel cannot be fetched and is not cached.
    """
    folder = wheel_files(bfcl.PACKAGE, bfcl.VERSION, bfcl.SHA256, MEMBERS)
    with _importable(folder):
        check: Any = importlib.import_module(f"{CHECKER}.ast_checker")
        decode: Any = importlib.import_module("bfcl_eval.model_handler.utils").default_decode_ast_prompting
        python: Any = importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON

    def right(reply: str, item: bfcl.Item) -> bool:
        # As in eval_runner.py: whatever the decoder raises is no call; what the checker raises would stop it all.
        try:
            calls = decode(reply)
        except Exception:
            return item.answers is None
        if item.answers is None:
            return not calls
        category = "multiple" if len(item.functions) > 1 else "simple_python"
        truth = [{item.function: copy.deepcopy(item.answers)}]
        return bool(
            check.ast_checker(copy.deepcopy(list(item.functions)), calls, truth, python, category, "any")["valid"]
        )

    return right


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """`bfcl_eval` can be imported from `folder`, whose files lack their packages; nothing is left behind."""
    before, replaced = set(sys.modules), {name: sys.modules.get(name) for name in EMPTY}
    for name, content in EMPTY.items():
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(content)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.startswith("bfcl_eval"):
                del sys.modules[name]
        for name, module in replaced.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def replies(item: bfcl.Item) -> Iterator[str]:
    """Answers to an item, right and wrong: every right value, and every argument spoilt in turn."""
    named = str(item.functions[0]["name"]) if item.functions else "surely_unknown"
    gold = item.gold or Call(named, {"surely_unknown": 1})
    text = str(gold)
    yield from (text, f"[{text}]", f"```\n{text}\n```", f"'{text}'", f"[{text}, {text}]", f"{text}; {text}")
    yield from (text.upper(), text.replace('"', "'"), text[:-1], text + " as asked", f"The call is {text}")
    yield from (
        "none",
        "",
        "[]",
        "{}",
        "42",
        "I cannot do that.",
        gold.function,
        f"{gold.function}()",
        f"{gold.function}(1)",
    )
    yield from (f"x = {text}", f"lambda: {text}", text.replace("=", ": "), f"no.{text}", f"{text}.real", f"-{text}")
    yield from (str(Call(str(f["name"]), gold.arguments)) for f in item.functions if f["name"] != gold.function)
    yield str(Call(gold.function, {**gold.arguments, "surely_unknown": 1}))
    yield from (
        f"{text[:-1]}, *a)",
        f"{text[:-1]}, **a)",
        f"{text[:-1]},)",
        f"{text} # sure",
        f"{text}()",
        f"[{text},]",
    )
    if item.answers is None:
        return
    for name, values in item.answers.items():
        yield from (str(Call(gold.function, {**gold.arguments, name: value})) for value in values)
    for name, value in gold.arguments.items():
        yield str(Call(gold.function, {key: v for key, v in gold.arguments.items() if key != name}))
        yield from (str(Call(gold.function, {**gold.arguments, name: other})) for other in _spoilt(value))
        rest = [f"{key}={literal(v)}" for key, v in gold.arguments.items() if key != name]
        for code in (*CODE, *_as_code(value)):
            yield f"{gold.function}({', '.join([*rest, f'{name}={code}'])})"


def _spoilt(value: Any) -> Iterator[Any]:
    """Other values in the place of a right one: other types, other spellings, near misses."""
    yield from (None, True, 0, 1, 2.0, -1, "", "other", [], {}, (), [value], (value,), {"a": value}, str(value))
    yield from (str(value).upper(), str(value).replace(" ", "-"), f" {value} ", f"{value}.", f"{value}!")
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield from (value + 1, -value, float(value), int(value))
    if isinstance(value, list):
        yield from (
            value[::-1],
            value[:-1],
            [*value, *value],
            tuple(value),
            [str(v) for v in value],
            [None, *value[1:]],
        )
    if isinstance(value, dict):
        yield from (
            {k: v for k, v in list(value.items())[1:]},
            {**value, "more": 1},
            {k: str(v) for k, v in value.items()},
        )
        yield [value, value]


def _as_code(value: Any) -> Iterator[str]:
    """A right value, written in other ways that Python knows."""
    text = literal(value)
    yield from (f"({text})", f"{text} if True else 1", f"[{text}][0]", f"str({text})", f"x := {text}", f"{text} or 1")
    if isinstance(value, str):
        yield from (f"'{value[:1]}' '{value[1:]}'", f"'{value[:1]}' + '{value[1:]}'", f"f'{value}'", f"b'{value}'")
        yield from (f"'{value}' * 1", f'"""{value}"""', f"r'{value}'", value)
    if isinstance(value, list):
        yield from (
            f"{text} + []",
            f"{text} * 1",
            f"[*{text}]",
            f"list({text})",
            f"[x for x in {text}]",
            f"set({text})",
        )
    if isinstance(value, dict):
        yield from (f"{{**{text}}}", f"dict({text})", "dict(" + ", ".join(f"{k}={v!r}" for k, v in value.items()) + ")")
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield from (
            f"{text} + 0",
            f"{text} * 1",
            f"+{text}",
            f"--{text}",
            f"{text} ** 1",
            f"{text} % 10**9",
            f"{text}e0",
        )
        yield from (
            f"{text} | 0",
            f"{text} << 0",
            f"~~{text}",
            f"{text} + x",
            f"{text} / 1",
            f"{text} // 1",
            f"2 * {text} / 2",
        )


def compare(items: list[bfcl.Item]) -> dict[str, Any]:
    """Counts of answers that are right for both, wrong for both, or judged otherwise, and those of the last sort."""
    official = benchmark()
    counts: Counter[str] = Counter()
    differ = []
    for item in items:
        for reply in dict.fromkeys(replies(item)):
            ours = judge(reply, item.functions, item.function, item.answers)
            try:
                theirs = "right" if official(reply, item) else "wrong"
            except Exception as error:  # the benchmark would stop here with no score at all
                theirs = f"stops with {type(error).__name__}"
            mine = "right" if ours == "right" else "wrong"
            counts["agree " + mine if mine == theirs else f"ours {mine}, benchmark {theirs}"] += 1
            if mine != theirs:
                one = {"id": item.id, "reply": reply, "ours": ours, "benchmark": theirs}
                differ.append({**one, "why": "operator" if _calculates(reply) else "?"})
    return {"items": len(items), "answers": counts.total(), "counts": dict(counts), "differ": differ}


def _calculates(reply: str) -> bool:
    """Whether the reply calculates with what is no number, or with bits: the benchmark runs that, we do not."""
    for node in ast.walk(ast.parse(reply.strip("[]` \n"), mode="eval")):
        if isinstance(node, ast.BinOp):
            bits = isinstance(node.op, ast.BitOr | ast.BitAnd | ast.BitXor | ast.LShift | ast.RShift)
            numbers = all(isinstance(ast.literal_eval(part), int | float) for part in (node.left, node.right))
            return bits or not numbers
    return False


def main() -> None:
    """Print a table, some of the differences, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=None, help="only the first so many")
    parser.add_argument("--show", type=int, default=20, help="most differences to print")
    given = parser.parse_args()
    found = compare(list(bfcl.upstream())[: given.items])
    for name, count in sorted(found["counts"].items()):
        print(f"{count:8d}  {name}")
    for one in found["differ"][: given.show]:
        print(
            re.sub(r"\s+", " ", f"{one['id']}: {one['reply'][:200]}: ours {one['ours']}, benchmark {one['benchmark']}")
        )
    why = Counter(one["why"] for one in found["differ"])
    print(json.dumps({**found, "differ": len(found["differ"]), "why": dict(why)}))


if __name__ == "__main__":
    main()
