"""The vocabulary: each quantity's name, symbol, unit and one-line meaning.

The only names that formulas, tables, labels and documents use. Counts (tokens, parameters, bytes, FLOPs) have
the unit they count; dimensional analysis treats them as numbers and follows s, USD, J and kg.
"""

from __future__ import annotations

from typing import NamedTuple


class Quantity(NamedTuple):
    """A named quantity: its symbol in formulas, its base unit, and what it means."""

    symbol: str
    unit: str
    meaning: str


QUANTITIES: dict[str, Quantity] = {
    # shape
    "layers": Quantity("L", "1", "transformer blocks"),
    "hidden": Quantity("h", "1", "width of the residual stream"),
    "heads": Quantity("a", "1", "query heads"),
    "kv_heads": Quantity("k", "1", "key-value heads"),
    "head_dim": Quantity("d", "1", "width of one head"),
    "query_width": Quantity("q", "1", "heads times head_dim"),
    "key_width": Quantity("k_w", "1", "kv_heads times head_dim"),
    "ffn": Quantity("f", "1", "inner width of the MLP"),
    "vocab": Quantity("V", "1", "rows of the embedding table"),
    "context": Quantity("T_max", "1", "positions in the learned table"),
    "seq": Quantity("T", "token", "tokens per sequence"),
    "mlp_matrices": Quantity("m", "1", "matrices of one MLP: 2 plain, 3 gated"),
    "norm_vectors": Quantity("g", "1", "vectors of one norm: 2 with bias, else 1"),
    "qkv_bias": Quantity("b_q", "1", "1 where the projection of q, k, v has a bias, else 0"),
    "proj_bias": Quantity("b_o", "1", "1 where the attention's output projection has a bias, else 0"),
    "mlp_bias": Quantity("b_m", "1", "1 where the MLP has biases, else 0"),
    "block_norms": Quantity("n_n", "1", "norms of one block on the residual's width"),
    "end_norms": Quantity("n_e", "1", "norms outside the blocks"),
    "normed_query": Quantity("q_n", "1", "width of the norm of the queries; 0 without one"),
    "normed_key": Quantity("k_n", "1", "width of the norm of the keys; 0 without one"),
    "value_width": Quantity("v_w", "1", "query heads times the width of a value head"),
    "query_rank": Quantity("r_q", "1", "rank of the queries' latent"),
    "kv_rank": Quantity("r_kv", "1", "rank of the latent of keys and values"),
    "nope_dim": Quantity("d_n", "1", "channels of a latent head without position"),
    "rope_dim": Quantity("d_r", "1", "channels of a latent head with rotary embedding"),
    "value_dim": Quantity("d_v", "1", "width of one value head"),
    "experts": Quantity("E_r", "1", "routed experts"),
    "top_k": Quantity("k_e", "1", "routed experts that a token uses"),
    "expert_ffn": Quantity("f_e", "1", "inner width of one routed expert"),
    "shared_ffn": Quantity("f_s", "1", "inner width of all shared experts"),
    "shared_gate": Quantity("g_s", "1", "1 where the shared experts have a gate, else 0"),
    "learned_positions": Quantity("p", "1", "1 with a learned position table, else 0"),
    "embedding_tables": Quantity("e", "1", "vocabulary tables: 1 tied, 2 untied"),
    "inputs": Quantity("K", "1", "input features of a linear layer"),
    "outputs": Quantity("M", "1", "output features of a linear layer"),
    # parameters
    "parameters": Quantity("N", "parameter", "all parameters"),
    "block_parameters": Quantity("N_b", "parameter", "parameters of one block"),
    "attention_parameters": Quantity("N_a", "parameter", "parameters of one block's attention"),
    "latent_query_parameters": Quantity("N_lq", "parameter", "parameters of the queries of latent attention"),
    "qk_norm_parameters": Quantity("N_qk", "parameter", "parameters of the norms of queries and keys"),
    "blocks_parameters": Quantity("N_bs", "parameter", "parameters of all blocks"),
    "blocks_linear_parameters": Quantity("N_bsl", "parameter", "weights of all blocks' linear layers"),
    "recomputed_parameters": Quantity("N_r", "parameter", "weights whose products are computed again in backward"),
    "attended_keys": Quantity("K_T", "1", "keys that a query's scores are counted against, summed over the blocks"),
    "mlp_parameters": Quantity("N_m", "parameter", "parameters of one block's MLP"),
    "embedding_parameters": Quantity("N_e", "parameter", "vocabulary and position tables"),
    "non_embedding_parameters": Quantity("N_ne", "parameter", "all parameters but the tables"),
    "block_linear_parameters": Quantity("N_bl", "parameter", "weights of one block's linear layers"),
    "linear_parameters": Quantity("N_lin", "parameter", "weights of all linear layers, the head included"),
    # data and batch
    "tokens": Quantity("D", "token", "training tokens"),
    "micro_batch": Quantity("B", "sequence", "sequences per device in one pass"),
    "accumulation": Quantity("A", "1", "micro-batches per step and device"),
    "data_parallel": Quantity("G", "1", "data-parallel replicas"),
    "sequences_per_step": Quantity("S", "sequence", "effective batch"),
    "tokens_per_step": Quantity("D_s", "token", "tokens of one optimizer step"),
    "tokens_per_micro_batch": Quantity("n", "token", "tokens of one micro-batch"),
    "steps": Quantity("T_s", "1", "optimizer steps"),
    "step": Quantity("k_s", "1", "number of an update, from 1"),
    "warmup_steps": Quantity("W", "1", "steps of linear warm-up"),
    "warmup_tokens": Quantity("D_w", "token", "tokens seen during warm-up"),
    "warmup_share": Quantity("w", "1", "warm-up as a share of the run"),
    "dataset_tokens": Quantity("U", "token", "distinct tokens of the data set"),
    "epochs": Quantity("E", "1", "passes over the data set"),
    # schedule
    "peak_lr": Quantity("eta_max", "1", "rate at the end of warm-up"),
    "min_lr": Quantity("eta_min", "1", "rate at the last step"),
    "learning_rate": Quantity("eta", "1", "rate of an update"),
    # FLOPs and time
    "flops": Quantity("C", "FLOP", "floating-point operations"),
    "training_flops": Quantity("C_t", "FLOP", "FLOPs of the whole training"),
    "flops_per_token": Quantity("c", "FLOP", "FLOPs per token, forward and backward"),
    "flops_per_step": Quantity("C_s", "FLOP", "FLOPs of one optimizer step, all devices"),
    "flops_rate": Quantity("F", "FLOP/s", "achieved FLOP/s per GPU"),
    "peak_flops_rate": Quantity("F_max", "FLOP/s", "dense peak of the type used"),
    "gemm_share": Quantity("e_g", "1", "share of the dense peak that large matrix products reach"),
    "attention_share": Quantity("e_a", "1", "share of the dense peak that the attention kernel reaches"),
    "head_alignment": Quantity("e_d", "1", "share of the attention rate kept at this head dimension"),
    "small_gemm": Quantity("k_0", "1", "size at which a matrix product reaches half its rate"),
    "tile_share": Quantity("u_t", "1", "padding of a matrix product to whole tiles, at least 1"),
    "bandwidth": Quantity("W_m", "byte/s", "memory bandwidth"),
    "bandwidth_share": Quantity("beta", "1", "share of the bandwidth reached"),
    "link_bandwidth": Quantity("W_l", "byte/s", "bandwidth of the link between GPUs, one direction"),
    "traffic_per_token": Quantity("t_e", "byte", "element-wise memory traffic per token and block"),
    "traffic_unit": Quantity("c_e", "1", "traffic of a runtime, in units of the reference block"),
    "gate_factor": Quantity("u_g", "1", "extra traffic of a gated MLP"),
    "bytes": Quantity("b_n", "byte", "bytes moved or held"),
    "seconds": Quantity("t", "s", "time"),
    "compute_seconds": Quantity("t_c", "s", "time of computation that communication can hide behind"),
    "host_seconds": Quantity("t_h", "s", "time in which the host launches kernels"),
    "step_seconds": Quantity("t_s", "s", "time of one optimizer step"),
    "tokens_per_second": Quantity("r", "token/s", "throughput of the whole run"),
    "mfu": Quantity("u", "1", "model FLOPs over peak FLOPs"),
    "gpus": Quantity("G_n", "1", "GPUs"),
    "gpu_seconds": Quantity("t_g", "s", "GPU time"),
    # money and energy
    "usd_per_gpu_second": Quantity("p_s", "USD/s", "price of one GPU for one second"),
    "usd": Quantity("P", "USD", "cost"),
    "power": Quantity("P_w", "J/s", "power of one GPU"),
    "pue": Quantity("PUE", "1", "power usage effectiveness of the data centre"),
    "energy": Quantity("E_j", "J", "energy"),
    "grid_intensity": Quantity("g_c", "kg/J", "CO2-equivalent per energy"),
    "co2e": Quantity("M_c", "kg", "CO2-equivalent emitted"),
    # bytes
    "weight_bytes": Quantity("w_b", "byte", "bytes of one weight"),
    "gradient_bytes": Quantity("g_b", "byte", "bytes of one gradient element"),
    "master_bytes": Quantity("m_b", "byte", "bytes of one master weight"),
    "state_bytes": Quantity("s_b", "byte", "bytes of optimizer state per parameter"),
    "compute_bytes": Quantity("c_b", "byte", "bytes of one element in the compute type"),
    "residual_bytes": Quantity("rho", "byte", "bytes of one element of the residual stream"),
    "cast_bytes": Quantity("x_b", "byte", "bytes of a weight's cast copy; 0 where nothing is cast"),
    "stat_vectors": Quantity("v_n", "1", "fp32 statistics per token of a norm: 2 LayerNorm, 1 RMSNorm"),
    "rotary_factor": Quantity("r_o", "1", "1 with rotary embedding, else 0"),
    "saved_weights_bytes": Quantity("b_sw", "byte", "weights as a checkpoint holds them"),
    "optimizer_bytes": Quantity("b_opt", "byte", "state of the optimizer"),
    "entries": Quantity("n_f", "1", "tensors in a checkpoint's files"),
    "tensors": Quantity("n_t", "1", "parameter tensors"),
    "capacity_bytes": Quantity("M", "byte", "memory of one card"),
    "shards": Quantity("Z", "1", "devices that share a part"),
    "unsharded_bytes": Quantity("b_u", "byte", "bytes per parameter held whole"),
    "sharded_bytes": Quantity("b_s", "byte", "bytes per parameter divided among the shards"),
}
