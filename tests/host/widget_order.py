"""The inputs of each node in their order: a saved workflow keeps widgets' values by their places.

A new input comes at the end, here and on its node; none changes its place.
"""

ORDER = {
    "MSL_AuditPromptSet": (
        "model clip vae prompts name preset steps cfg sampler_name scheduler first_seed width "
        "height limit keep category where second_opinion"
    ),
    "MSL_CompareAudits": "reports names images",
    "MSL_ExampleModel": "",
    "MSL_ExtractSafetyLora": (
        "model clip source concept save_as form keep rank prompts held_out strength file_precision"
    ),
    "MSL_LoadSafetyLora": "lora_name sha256 safety",
    "MSL_LoadTaskLora": "lora_name strength_model strength_clip tasks",
    "MSL_ModularMerge": "model safety clip tasks foreign_changes on_conflict",
    "MSL_NudityAudit": "images preset threshold action classes second_opinion",
    "MSL_ProbeSafety": "model action prompts seed adaptive_steps",
    "MSL_SealSafetyLora": "lora_name concept strength save_as prompts held_out",
    "MSL_TrainSafetyLora": (
        "model clip concept concept_preset method save_as steps learning_rate rank batch_size "
        "seed retain resolution vae preview_prompts preview_every preview_size preview_preset "
        "alpha optimizer weight_decay schedule warmup clip_norm accumulate precision "
        "gradient_checkpointing save_every resume eta guidance sampling_steps preview_steps "
        "preview_guidance held_out surrogate near retain_weight"
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
