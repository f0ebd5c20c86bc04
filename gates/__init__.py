"""Nothing leaves this ComfyUI that was not looked at: what `require_audit` holds."""
