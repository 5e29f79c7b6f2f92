"""A text encoder as a network: encoded texts in, one feature vector for each text out.

Axes: N texts, L tokens, F features.
"""

from torch import Tensor, nn

from indexer.networks.tokens import MASK, TOKENS
from indexer.records import TextPooling


class TextEncoder(nn.Module):
    """A model of transformers that maps encoded texts ``[N, 2, L]`` to features ``[N, F]``.

    Padding is masked in attention and in pooling, so a token of it gets no gradient and gives none: a text has
    the same features and the same Fisher information whatever it is padded to.

    Args:
        network: That gives ``last_hidden_state`` ``[N, L, F]``.
        pooling: ``mean`` over the tokens of a text, or ``cls`` for the state of its first token.
    """

    def __init__(self, network: nn.Module, pooling: TextPooling) -> None:
        super().__init__()
        self.network = network
        self.pooling = pooling

    def forward(self, texts: Tensor) -> Tensor:
        """Map encoded texts ``[N, 2, L]``, integers, to features ``[N, F]``."""
        mask = texts[:, MASK]
        # A view: lookups of tokens are told by their memory, see indexer.weight_uses.
        outputs = self.network(input_ids=texts[:, TOKENS], attention_mask=mask)
        hidden: Tensor = outputs["last_hidden_state"]
        if self.pooling == "cls":
            return hidden[:, 0]
        return hidden.masked_fill(mask[..., None] == 0, 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
