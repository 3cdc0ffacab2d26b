"""Words: prompts with emphasis, CLIP's tokenizer, trigger words and their embedding files."""
