"""A conversation in the terminal with what a language run has learnt."""

from __future__ import annotations

import torch

from experiments.language_runs import LanguageRun
from llm.data.records import Conversation, Unfit
from llm.written import WrittenDomain
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.trajectories import Contexts


class Talk:
    """What was said so far, where the model knows conversations; otherwise every line stands alone."""

    def __init__(self, learnt: LanguageRun, greedy: bool, system: str, seed: int) -> None:
        self.learnt, self.greedy, self.seed = learnt, greedy, seed
        self.knows_turns = isinstance(learnt.domain, WrittenDomain) and bool(learnt.domain.tokenizer.chat_template)
        if system and not self.knows_turns:
            raise UserError("The model knows no conversations, so nothing can be said to it as a system; leave it out.")
        self.begin: Conversation = (("system", system),) if system else ()
        self.said, self.count = self.begin, 0

    def forget(self) -> None:
        self.said = self.begin

    @torch.no_grad()
    def answer(self, line: str) -> str:
        """What the policy says to this line."""
        policy, domain = self.learnt.policy, self.learnt.domain
        said: Conversation = (*self.said, ("user", line))
        prompt = domain.asked_tokens(said if self.knows_turns else line)
        contexts = Contexts(
            ids=torch.tensor([-1]), data={"token": torch.tensor([prompt]), "length": torch.tensor([len(prompt)])}
        )
        self.count += 1
        own = policy.greedy(contexts) if self.greedy else policy.sample(contexts, stream(self.seed, "talk", self.count))
        tokens = own.data["token"][own.mask]
        if bool(own.terminated):
            tokens = tokens[:-1]
        text = str(domain.tokenizer.decode(tokens, skip_special_tokens=False)).strip()
        self.said = (*said, ("assistant", text))
        return text


def talk(partner: Talk) -> None:
    """Until the input ends."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if not line:
            partner.forget()
            continue
        try:
            print(partner.answer(line))
        except (UserError, Unfit) as problem:
            print(f"This cannot be answered: it {problem}" if isinstance(problem, Unfit) else str(problem))
            partner.forget()
