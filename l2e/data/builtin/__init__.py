"""The built-in world: a small generated corpus with held-out questions, made from a seed, without any download.

The corpus states facts (who lives where, what is made of what, which tool does what) in three invented languages and
two invented styles of code. Three tasks, in the schemas of ARC, PIQA and SciQ, ask for such facts.

What "held out" means: a scored item asks for a fact that training documents *state*, in every language and code style,
but never *ask*, in any language. The form of questions is learnt from other facts. So neither an item's question nor
its question with the answer occurs anywhere in the training text; to answer, a model must carry a fact from statements
over to a form of words in which it never saw that fact. SciQ's passages state the fact once more, among three others
that pair the wrong choices with other subjects. Items of the splits that give few-shot examples ask for known facts,
whose questions do occur in the training text.
"""

from l2e.data.builtin.settings import WorldSettings
from l2e.data.builtin.writer import write_world

__all__ = ["WorldSettings", "write_world"]
