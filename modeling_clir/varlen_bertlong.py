# Copyright 2026 The modeling_clir developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Attention between sequences of different lengths without padding: on a GPU by `torch.nn.attention.varlen`, on a CPU by a
reference of quadratic cost.

Letters of shapes: Q queries and K keys of all sequences, H heads, d head size.
"""

from collections.abc import Callable
from functools import cache
from inspect import signature

import torch
from torch.autograd.function import once_differentiable

from .layout_bertlong import Sequences, within_window


class MergedAttention(torch.autograd.Function):
    """
    Attends to several sets of keys with one softmax over all of them. A kernel attends to each set alone and gives its
    output o_i and the logarithm l_i of its sum of exponentials. The result is o = sum of exp(l_i - l) o_i with
    l = log(sum of exp(l_i)).

    The weight of a key with score s is exp(s - l), and the gradient of s is its weight times (g v - g o), where g is
    the gradient of o and v the key's value. A kernel's backward computes this from its output and log-sum-exp. Given o
    and l in their place it computes the exact gradients of the merged attention (Dao et al. 2022, FlashAttention,
    appendix B.2). So the kernels need no gradient of l_i; `varlen_attn` has none.
    """

    @staticmethod
    def forward(
        ctx,
        query: torch.Tensor,  # (Q, H, d)
        scaling: float,
        sets: list[Sequences],
        *keys_and_values: torch.Tensor,  # (K, H, d), keys and values of the first set, of the second, ...
    ) -> torch.Tensor:
        ctx.sets, ctx.scaling = sets, scaling
        attend, ctx.backward_of_kernel = kernels(query)
        pairs = list(zip(keys_and_values[::2], keys_and_values[1::2]))
        if not len(query):  # kernels need a sequence
            output, total = torch.empty_like(query), query.new_empty(query.shape[1], 0)
        elif len(sets) == 1:
            output, total = attend(query, *pairs[0], sets[0], scaling)
        else:
            parts = [attend(query, *pair, one, scaling) for pair, one in zip(pairs, sets)]
            sums = torch.stack([part for _, part in parts])  # (sets, H, Q)
            total = sums.logsumexp(0)
            shares = (sums - total).exp().transpose(1, 2)[..., None]  # (sets, Q, H, 1)
            output = sum(share * part for share, (part, _) in zip(shares, parts)).to(query.dtype)
        ctx.save_for_backward(query, output, total, *keys_and_values)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        query, output, total, *keys_and_values = ctx.saved_tensors
        if not len(query):
            return gradient, None, None, *(torch.zeros_like(tensor) for tensor in keys_and_values)
        gradient, query_gradient, found = gradient.contiguous(), 0, []
        for key, value, one in zip(keys_and_values[::2], keys_and_values[1::2], ctx.sets):
            share, *of_keys_and_values = ctx.backward_of_kernel(
                gradient, query, key, value, output, total, one, ctx.scaling
            )
            query_gradient = query_gradient + share
            found += of_keys_and_values
        return query_gradient, None, None, *found


def kernels(query: torch.Tensor) -> tuple[Callable, Callable]:
    """
    Chooses the kernels that attend forward and backward.

    Raises:
        `ValueError` if a GPU cannot compute in the precision of `query`, or torch is too old.
    """
    if query.device.type == "cpu":
        return reference_forward, reference_backward
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"attn_implementation='varlen' computes in bfloat16 or float16 on a GPU, got {query.dtype}: load the "
            "model with dtype=torch.bfloat16, use autocast, or use attn_implementation='sdpa'"
        )
    return varlen_forward, varlen_backward


# ---------------------------------------------------------------------------------------------------------------------
# On a GPU
# ---------------------------------------------------------------------------------------------------------------------


@cache
def varlen() -> tuple[Callable, type]:
    """Imports torch's `varlen_attn` and `AuxRequest` at the first use. Raises `ValueError` if torch is too old."""
    try:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn
    except ImportError:
        found = False
    else:
        found = "window_size" in signature(varlen_attn).parameters
    if not found:
        raise ValueError(
            f"attn_implementation='varlen' needs torch 2.11 or newer on a GPU, this is {torch.__version__}: use "
            "attn_implementation='sdpa'"
        )
    return varlen_attn, AuxRequest


def varlen_forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, one: Sequences, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the attended values `(Q, H, d)` and the logarithms of the sums of exponentials `(H, Q)`, in float32."""
    varlen_attn, aux_request = varlen()
    return varlen_attn(
        query,
        key,
        value,
        one.queries,
        one.keys,
        one.most_queries,
        one.most_keys,
        return_aux=aux_request(lse=True),
        scale=scaling,
        window_size=(one.reach, one.reach),
    )


def varlen_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    total: torch.Tensor,
    one: Sequences,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of query, key and value. `output` and `total` are those of the merged attention."""
    unused = torch.zeros(2, dtype=torch.uint64, device=query.device)  # state of dropout, which there is none of
    return torch.ops.aten._flash_attention_backward(
        gradient,
        query,
        key,
        value,
        output,
        total,
        one.queries,
        one.keys,
        one.most_queries,
        one.most_keys,
        0.0,
        False,
        unused,
        unused,
        scale=scaling,
        window_size_left=one.reach,
        window_size_right=one.reach,
    )


# ---------------------------------------------------------------------------------------------------------------------
# On a CPU: the definition, a sequence at a time
# ---------------------------------------------------------------------------------------------------------------------


def slices(one: Sequences) -> list[tuple[slice, slice]]:
    """Places of the queries and of the keys of each sequence."""
    queries, keys = one.queries.tolist(), one.keys.tolist()
    return [(slice(*queries[i : i + 2]), slice(*keys[i : i + 2])) for i in range(len(queries) - 1)]


def scores(query: torch.Tensor, key: torch.Tensor, one: Sequences, scaling: float) -> torch.Tensor:
    """Scores of one sequence, `(H, queries, keys)`, -inf outside the window."""
    found = torch.einsum("qhd,khd->hqk", query, key) * scaling
    if one.reach < 0:
        return found
    near = within_window(torch.arange(len(query)), torch.arange(len(key)), 2 * one.reach)
    return found.masked_fill(~near, -torch.inf)


@torch.autocast("cpu", enabled=False)
def reference_forward(query, key, value, one, scaling):
    """[`varlen_forward`], in float32 or float64 inside."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    output, total = torch.empty_like(query), query.new_empty(query.shape[1], len(query), dtype=dtype)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    for queries, keys in slices(one):
        found = scores(query[queries], key[keys], one, scaling)
        total[:, queries] = found.logsumexp(-1)
        output[queries] = torch.einsum("hqk,khd->qhd", found.softmax(-1), value[keys]).to(output.dtype)
    return output, total


@torch.autocast("cpu", enabled=False)
def reference_backward(gradient, query, key, value, output, total, one, scaling):
    """[`varlen_backward`], in float32 or float64 inside."""
    dtypes, dtype = [tensor.dtype for tensor in (query, key, value)], total.dtype
    gradient, query, key, value, output = (tensor.to(dtype) for tensor in (gradient, query, key, value, output))
    found = [torch.empty_like(tensor) for tensor in (query, key, value)]
    for queries, keys in slices(one):
        weights = (scores(query[queries], key[keys], one, scaling) - total[:, queries, None]).exp()
        change = torch.einsum("qhd,khd->hqk", gradient[queries], value[keys])
        change = weights * (change - (gradient[queries] * output[queries]).sum(-1).T[..., None]) * scaling
        found[0][queries] = torch.einsum("hqk,khd->qhd", change, key[keys])
        found[1][keys] = torch.einsum("hqk,qhd->khd", change, query[queries])
        found[2][keys] = torch.einsum("hqk,qhd->khd", weights, gradient[queries])
    return [tensor.to(dtype) for tensor, dtype in zip(found, dtypes)]
