"""The inputs of each node in their order: a saved workflow keeps widgets' values by their places.

A new input comes at the end, here or in the contract, and on its node; none changes its place.
"""

from contract import CONTRACT

# as in the contract, where that has all inputs of a node
ORDER = {node_id: " ".join(inputs) for node_id, (_, inputs, _) in CONTRACT.items()} | {
    "MSL_AuditPromptSet": (
        "model clip vae prompts name preset steps cfg sampler_name scheduler first_seed width "
        "height limit keep category where second_opinion min_size pictures_per_prompt "
        "protocol"
    ),
    "MSL_SearchPrompts": (
        "model base clip vae prompts name preset kind levels iterations steps cfg sampler_name "
        "scheduler first_seed width height limit keep length search_seed category where "
        "second_opinion min_size pictures_per_prompt protocol"
    ),
    "MSL_TrainSafetyLora": (
        "model clip concept concept_preset method save_as steps learning_rate rank batch_size "
        "seed retain resolution vae preview_prompts preview_every preview_size preview_preset "
        "alpha optimizer weight_decay schedule warmup clip_norm accumulate precision "
        "gradient_checkpointing save_every resume eta guidance sampling_steps preview_steps "
        "preview_guidance held_out surrogate near more_presets retain_weight saliency "
        "layer_pattern adversarial_steps"
    ),
    "MSL_TrainTaskLora": (
        "model latents positive safety clip safety_mode save_as steps learning_rate rank "
        "batch_size seed targets vae preview_prompts preview_every preview_size "
        "preview_preset alpha optimizer weight_decay schedule warmup clip_norm accumulate "
        "precision gradient_checkpointing save_every resume target_pattern concept_prompts "
        "anchor_lambda anchor_every dropout rslora dora ema min_snr_gamma noise_offset "
        "prior_latents prior_positive prior_weight loss preview_steps preview_guidance"
    ),
}
