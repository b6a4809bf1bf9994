"""A world of your own: three levers, the last the best. A reward is a number for each one, a policy their softmax."""

import torch

import unified_irl as irl

EVERY = irl.Trajectories.whole(torch.zeros(3).long(), {"lever": torch.arange(3)[:, None]}, torch.zeros(3, 1))


class Levers(irl.LearnableModule):
    def forward(self, pulls):
        return self.numbers[pulls.data["lever"]]

    def log_prob(self, pulls):
        return self.numbers.log_softmax(0)[pulls.data["lever"]] * pulls.mask

    def sample(self, contexts, generator):
        log_prob = self.numbers.detach().log_softmax(0)
        lever = torch.multinomial(log_prob.exp(), len(contexts), replacement=True, generator=generator)[:, None]
        return irl.Trajectories.whole(contexts.ids, {"lever": lever}, log_prob[lever])

    def improve(self, reward, reference, beta, gamma, contexts, num_updates, generator):
        self.numbers.data = reference.numbers.log_softmax(0) + reward.for_policy()(EVERY)[:, 0] / beta
        return {"policy_loss": -beta * self.numbers.logsumexp(0).item()}, self.sample(contexts, generator)


class Bandit:
    contexts, preferences = irl.Contexts(ids=torch.arange(1), data={}), None
    demonstrations = irl.Demonstrations.by("somebody", EVERY[torch.tensor([2] * 9 + [1])])

    def build(self, row):
        policy, reward = (Levers(how, numbers=torch.zeros(3)) for how in (row.policy_descent, row.reward_descent))
        return irl.Parts(policy, reward if row.reward == "explicit" else None, policy.frozen())

    def evaluate(self, policy, reward):
        return {"score": policy.numbers.softmax(0)[2].item()}


done = irl.Learner(Bandit(), irl.method("ml-irl"), seed=0).learn()
print(len(irl.check_domain(Bandit(), irl.METHODS.values())), "promises kept;", done.domain.evaluate(done.policy, None))
