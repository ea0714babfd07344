"""Two invented styles of code that state facts: one with braces, one with parentheses."""

from collections.abc import Sequence

from l2e.data.builtin.facts import Fact

CODE_STYLES = ("brace", "paren")

# Words of the code itself, which no language and no name may use.
CODE_WORDS = ("module", "let", "define", "facts", "list")


def code_text(style: str, facts: Sequence[Fact], number: int) -> str:
    """A short listing that states the facts.

    Args:
        style: one of CODE_STYLES.
        facts: in the order to be stated.
        number: tells one listing from another.
    """
    if style == "brace":
        lines = [f"  let {fact.subject}.{fact.relation.name} = {fact.value};" for fact in facts]
        return "\n".join([f"module m{number} {{", *lines, "}"])
    lines = [f"  ({fact.relation.name} {fact.subject} {fact.value})" for fact in facts]
    return "\n".join([f"(define facts-{number} (list", *lines, "))"])
