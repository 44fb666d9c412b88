"""What a notebook teaches, taken from its cells, so that a test can hold it to an oracle."""

import ast
from types import ModuleType

from contracts import tags

from course.notebooks import all_notebooks, code_cells, read


def taught(notebook: str, *names: str) -> ModuleType:
    """Return a module with a notebook's imports and its functions and constants ``names``, or else all functions."""
    (path,) = (path for path in all_notebooks() if path.name.startswith(f"{notebook}_"))
    module, left = ModuleType(path.stem), set(names)
    for _, cell in code_cells(read(path)):
        if "setup" in tags(cell):
            continue
        for node in ast.parse(cell.source).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            defined = {getattr(target, "name", getattr(target, "id", None)) for target in targets} & set(names)
            if "imports" in tags(cell) or defined or (not names and isinstance(node, ast.FunctionDef)):
                exec(compile(ast.Module([node], []), path.name, "exec"), vars(module))
                left -= defined
    if left:
        raise LookupError(f"{path.name} defines no {', '.join(sorted(left))}")
    return module
