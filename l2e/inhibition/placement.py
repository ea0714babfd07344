"""Which blocks are tapped (rows L16, L23, M15, M16; ambiguity 2.22), and where a model keeps them."""

from collections.abc import Sequence

from torch import nn

PLACEMENTS = ("middle-2", "middle-third", "middle-4", "top-bottom")


def select_blocks(num_layers: int, blocks: str | Sequence[int]) -> list[int]:
    """Indices of the tapped blocks, counted from 0.

    Args:
        num_layers: number of blocks n of the model.
        blocks: "middle-2" {n/2-1, n/2}, "middle-third" range(n//3, 2n//3), "top-bottom" {0, n-1},
            "middle-4" {n/2-2 ... n/2+1} (MEmeL's), or a list of indices.

    Raises:
        ValueError: an unknown name, an index outside the model, the same block twice, or no block.
    """
    n = num_layers
    if isinstance(blocks, str):
        if blocks not in PLACEMENTS:
            raise ValueError(f"blocks must be one of {', '.join(PLACEMENTS)} or a list of indices, not {blocks!r}")
        least = 4 if blocks == "middle-4" else 2
        if n < least:
            raise ValueError(f"blocks: {blocks} needs a model of at least {least} blocks, this one has {n}")
        named = {
            "middle-2": [n // 2 - 1, n // 2],
            "middle-third": list(range(n // 3, 2 * n // 3)),
            "middle-4": list(range(n // 2 - 2, n // 2 + 2)),
            "top-bottom": [0, n - 1],
        }
        return named[blocks]
    if not blocks:
        raise ValueError("blocks must name at least one block")
    if len(set(blocks)) != len(blocks):
        raise ValueError(f"blocks names a block twice: {blocks}")
    outside = [index for index in blocks if not 0 <= index < n]
    if outside:
        raise ValueError(f"blocks: {outside} lie outside the model, whose blocks are 0 to {n - 1}")
    return sorted(blocks)


def tapped_modules(
    model: nn.Module, blocks: str | Sequence[int] | Sequence[str], stack: str | None = None
) -> dict[int | str, nn.Module]:
    """The modules whose outputs are tapped, by index in the list of blocks or by path.

    Args:
        model: any module.
        blocks: as in `select_blocks`, or paths of modules, e.g. ["cell.candidate"].
        stack: path of the list that holds the blocks; None: the largest (`find_blocks`).

    Raises:
        ValueError: there is nothing at a path, or no list of blocks, or see `select_blocks`.
    """
    if not isinstance(blocks, str) and all(isinstance(block, str) for block in blocks) and blocks:
        return _distinct({path: _at(model, str(path), "blocks") for path in blocks}, len(blocks))
    found = _at(model, stack, "stack") if stack is not None else find_blocks(model)
    if not isinstance(found, nn.ModuleList | nn.Sequential):
        raise ValueError(f"stack: {stack} is a {type(found).__name__}, not a ModuleList or Sequential of blocks")
    indices = select_blocks(len(found), blocks)  # type: ignore[arg-type]
    return _distinct({index: found[index] for index in indices}, len(indices))


def find_blocks(model: nn.Module) -> nn.ModuleList | nn.Sequential:
    """The model's list of blocks: the list of modules of one class that holds the most parameters.

    Raises:
        ValueError: there is no such list, or it is one of several alike (the heads of a block, experts).
    """
    lists = {
        path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList | nn.Sequential)
    }
    stacks = {path: s for path, s in lists.items() if len(s) > 1 and len({type(block) for block in s}) == 1}
    if not stacks:
        raise ValueError(
            f"found no list of blocks in {type(model).__name__}: name it with stack=..., or name the modules "
            f"themselves with blocks=[path, ...]"
        )
    path = max(stacks, key=lambda path: sum(p.numel() for p in stacks[path].parameters()))
    for outer, holder in lists.items():
        inside = path != outer and path.startswith(f"{outer}." if outer else "")
        element = path[len(outer) :].lstrip(".").split(".")[0] if inside else ""
        if element and sum(type(other) is type(holder.get_submodule(element)) for other in holder) > 1:
            raise ValueError(
                f"found no one list of blocks in {type(model).__name__}: {path} is one of several alike, and "
                f"{outer or 'the model'} holds modules of several classes; name the list with stack=..., or the "
                f"modules themselves with blocks=[path, ...]"
            )
    return stacks[path]


def _distinct(modules: dict[int | str, nn.Module], asked: int) -> dict[int | str, nn.Module]:
    if len({id(module) for module in modules.values()}) < asked:
        raise ValueError(f"blocks names a module twice: {list(modules)}")
    return modules


def _at(model: nn.Module, path: str, key: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ValueError(f"{key}: {type(model).__name__} has no module {path!r}") from None
