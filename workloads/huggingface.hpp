// SPDX-License-Identifier: Apache-2.0
#pragma once

// The shape of a model from its Hugging Face config.json.
//
// Read by `model_type`: llama (also CodeLlama, Yi), mistral (also Mistral-Nemo), qwen2, qwen3, mixtral, qwen3_moe,
// qwen2_moe,
// deepseek, deepseek_v2, deepseek_v3, kimi_k2, gpt2, opt, bloom, bert. Absent keys take the defaults that the transformers library gives them. Keys that change the
// shape in a way not modelled (OPT's projected embeddings, BERT as a decoder, dense layers behind the first MoE one) are refused;
// keys that touch neither shape nor size are passed over. Sliding-window attention is taken as full attention. Errors:
// bad_input "file: key: what is wrong".

#include <filesystem>
#include <string>
#include <string_view>

#include "workloads/architecture.hpp"

namespace dssim {

Architecture read_huggingface_config(const std::filesystem::path& path);
Architecture parse_huggingface_config(std::string_view json, const std::string& name);

}  // namespace dssim
