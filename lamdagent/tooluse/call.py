"""A function call as text and as a value: `area(base=10, unit="cm")`. Text is parsed, never evaluated."""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def _power(base: float, exponent: float) -> Any:
    """Raises OverflowError for a power beyond a float: a reply such as 9**9**9 must not stop the evaluation."""
    float(base) ** float(exponent)
    return base**exponent


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


class UnreadableCall(ValueError):
    """The text is not a function call, or not a list of them."""


@dataclass(frozen=True)
class Call:
    """A function's name with its keyword arguments."""

    function: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        """The form that models are asked for, with double quotes around strings."""
        return f"{self.function}({', '.join(f'{name}={literal(value)}' for name, value in self.arguments.items())})"


def literal(value: Any) -> str:
    """`value` as a Python literal with double quotes wherever a plain string allows them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(literal(inner) for inner in value) + "]"
    if isinstance(value, str) and not set(value) & set('"\\\n\r\t'):
        return f'"{value}"'
    return repr(value)


def read_calls(text: str) -> list[Call]:
    """The calls in `text`: one call, several with commas, or a list of them; fences and quotes around are ignored.

    As in the benchmark, positional arguments are dropped and a bare name stands for its text.

    Raises:
        UnreadableCall: anything else, an empty text included.
    """
    text = text.strip("`\n ")
    text = text if text.startswith("[") else "[" + text
    text = text if text.endswith("]") else text + "]"
    try:
        tree = ast.parse(text.strip().strip("'"), mode="eval").body
        elements = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
        return [_call(element) for element in elements]
    except UnreadableCall:
        raise
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError, MemoryError) as error:
        raise UnreadableCall(str(error)) from None


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise UnreadableCall(f"not a call: {ast.unparse(node)}")
    return Call(_dotted(node.func), {str(keyword.arg): _value(keyword.value) for keyword in node.keywords})


def _dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _value(node: ast.expr) -> Any:
    """The value of an argument; what is no literal becomes its source text."""
    match node:
        case ast.Constant(value=value):
            return "..." if value is ... else value
        case ast.Name(id=name):
            return name
        case ast.List(elts=elements):
            return [_value(element) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(element) for element in elements)
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.BinOp():
            return _number(node)
        case ast.Call(keywords=keywords) if keywords:
            call = _call(node)
            return {call.function: dict(call.arguments)}
        case ast.Call() | ast.Subscript():
            return ast.unparse(node)
    raise UnreadableCall(f"unsupported value: {ast.unparse(node)}")


def _key(node: ast.expr | None) -> Any:
    if node is None:
        raise UnreadableCall("a dict is unpacked")
    return _value(node)


def _number(node: ast.expr) -> Any:
    """Arithmetic on numbers, as in `area(width=2 * 3)`."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_number(left), _number(right))
    raise UnreadableCall(f"unsupported arithmetic: {ast.unparse(node)}")
