"""Small faults for a program's source: where they can be put, and a seeded sample of them.

mutmut rewrites every function into a trampoline, which tests that read our source would see, and cosmic-ray has one
test command for all mutants: here each mutant has the tests of its own file.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
OTHER_EXTREME = {"min": "max", "max": "min"}


@dataclass(frozen=True)
class Mutation:
    """One fault in one file: the text from `begin` to `end` (offsets into the source) becomes `after`."""

    file: str
    line: int
    function: str
    operator: str
    begin: int
    end: int
    before: str
    after: str

    @property
    def key(self) -> str:
        """What tells it apart as long as its lines stay: file, function, operator and both texts."""
        return f"{self.file} · {self.function} · {self.operator} · {self.before} → {self.after}"

    def applied(self, source: str) -> str:
        """The source with this fault."""
        assert source[self.begin : self.end] == self.before, "a mutation of another source"
        return source[: self.begin] + self.after + source[self.end :]


def mutations(source: str, file: str) -> list[Mutation]:
    """Every fault that we know how to put into this source, in order. The result always compiles."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        text = source[starts[line - 1] : starts[line]]
        return starts[line - 1] + len(text.encode()[:column].decode())

    found = []
    for node, function in _places(ast.parse(source), ""):
        assert isinstance(node, ast.expr | ast.stmt) and node.end_lineno is not None and node.end_col_offset is not None
        begin, end = offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)
        before = source[begin:end]
        for operator, changed in _changes(node):
            after = ast.unparse(changed)
            after = after if isinstance(node, ast.stmt) else f"({after})"
            found.append(Mutation(file, node.lineno, function, operator, begin, end, before, after))
    return found


def _places(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
    """Expressions and statements that may be changed, with the name of their function.

    Not in annotations, decorators, assertions and f-strings: what they say is checked by mypy, is no behaviour, is
    itself a test, or is a message. Python 3.11 has no places in f-strings.
    """
    if isinstance(node, ast.Assert | ast.JoinedStr | ast.ImportFrom | ast.Import):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}" if function else node.name
    elif isinstance(node, ast.expr | ast.stmt):
        yield node, function
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _places(child, function)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Names of faults, and the node with each."""
    if isinstance(node, ast.expr):
        yield from _expression_changes(node)
        return
    if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(node, ast.AugAssign | ast.Raise):
        yield "dropped statement", ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield "returns nothing", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Continue):
        yield "leaves the loop", ast.Break()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _expression_changes(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield "comparison", ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and, or", ast.BoolOp(other, node.values)
        yield "one condition less", node.values[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "negation dropped", node.operand
    elif isinstance(node, ast.IfExp):
        yield "other branch", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OTHER_EXTREME:
        changed = copy.deepcopy(node)
        changed.func = ast.Name(OTHER_EXTREME[node.func.id])
        yield "min, max", changed
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
        yield "arithmetic", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        if isinstance(node.op, ORDERED) and ast.dump(node.left) != ast.dump(node.right):
            yield "operands swapped", ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.Constant):
        yield from _constant_changes(node.value)


def _is_text(node: ast.BinOp) -> bool:
    """Whether an operand is plainly text or a list, for which no arithmetic was meant."""
    texts = (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp)
    parts = (node.left, node.right)
    return any(isinstance(p, texts) or (isinstance(p, ast.Constant) and isinstance(p.value, str)) for p in parts)


def _constant_changes(value: object) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int):
        yield "constant", ast.Constant(value + 1)
        if value:
            yield "constant", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "constant", ast.Constant(value * 2 if value else 1.0)


def sample(root: Path, packages: tuple[str, ...], count: int, seed: int) -> list[Mutation]:
    """`count` mutations of these packages: evenly from package to package, one per file while files last.

    Each file has its own draw by seed and path, so that a change of one file leaves the mutants of all others as they
    are. In a file the kind of fault is drawn first: constants are many, and would be most of the sample.
    """
    chosen = list[Mutation]()
    lists = [_drawn(root, package, seed, -(-count // len(packages))) for package in packages]
    for turn in range(max(map(len, lists), default=0)):
        chosen += [found[turn] for found in lists if turn < len(found)]
    return chosen[:count]


def _drawn(root: Path, package: str, seed: int, most: int) -> list[Mutation]:
    """The mutations of a package in the order in which a sample takes them: at least `most`, or all."""
    files = sorted((root / package).rglob("*.py"), key=lambda path: _digest(seed, root, path))
    found, again = list[Mutation](), 0
    while len(found) < most and again < 20:
        for path in files:
            rng = random.Random(_digest(seed + again, root, path))
            kinds = defaultdict[str, list[Mutation]](list)
            for mutation in mutations(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()):
                kinds[mutation.operator].append(mutation)
            drawn = rng.choice(kinds[rng.choice(sorted(kinds))]) if kinds else None
            found += [drawn] if drawn is not None and drawn.key not in {m.key for m in found} else []
            if len(found) >= most:
                break
        again += 1
    return found


def _digest(seed: int, root: Path, path: Path) -> str:
    return hashlib.sha256(f"{seed}/{path.relative_to(root).as_posix()}".encode()).hexdigest()
