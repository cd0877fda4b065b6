#pragma once
// SentencePiece models for tests, trained by the library itself on a few lines.

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace cartesian::test {

inline std::vector<std::string> training_lines() {
  const std::vector<std::string> words = {"whale",   "ship",    "sea",   "captain",
                                          "harpoon", "sail",    "storm", "quiet",
                                          "night",   "morning", "42",    "na\u00efve"};
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < 300; ++i) {
    std::string line;
    for (std::size_t j = 0; j < 9; ++j) {
      line += words[(i * i + j * 7 + i * j) % words.size()] + (j % 4 == 3 ? ", " : " ");
    }
    lines.push_back(line);
  }
  return lines;
}

/// `changes` are the library's settings beyond a small model with a byte fallback.
inline std::string trained_model(const std::unordered_map<std::string, std::string>& changes) {
  class Lines final : public sentencepiece::SentenceIterator {
   public:
    bool done() const override { return next_ == lines_.size(); }
    void Next() override { ++next_; }
    const std::string& value() const override { return lines_[next_]; }
    sentencepiece::util::Status status() const override { return {}; }

   private:
    std::vector<std::string> lines_ = training_lines();
    std::size_t next_ = 0;
  } lines;
  std::unordered_map<std::string, std::string> settings = {
      {"vocab_size", "290"}, {"byte_fallback", "true"}, {"minloglevel", "2"}};
  for (const auto& [key, value] : changes) {
    settings[key] = value;
  }
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return model;
}

}  // namespace cartesian::test
