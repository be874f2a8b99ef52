"""Classifier re-training (cRT): a new linear head by -log softmax(w_k x + b_k)_y, every class drawn as often."""

from __future__ import annotations

from ._second_stage import AfterCE, SecondStage, cross_entropy, only_the_head, second_stage


class Retrained(AfterCE):
    """The features are cross-entropy's. The rate is the paper's for ImageNet-LT (Places-LT: 0.1), found for a ResNet's features;
    a ViT's are of another size."""

    title = "classifier re-training (cRT)"
    source = "Kang et al. 2020, arXiv:1910.09217, section 4"

    class Parameters(SecondStage): ...

    def phases(self):
        def new_head(network):
            only_the_head(network)
            network.head.reset_parameters()

        return [second_stage(self.problem, self.parameters, cross_entropy, prepare=new_head, sampling="classes")]


METHOD = Retrained
