#include "runtime/data/document_splitter.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/data/utf8.h"

namespace cartesian {
namespace {

std::vector<std::string> split(const std::string& text, std::int64_t bytes) {
  DocumentSplitter splitter(std::as_bytes(std::span(text)), bytes);
  std::vector<std::string> documents;
  std::size_t offset = 0;
  while (const auto document = splitter.next()) {
    EXPECT_EQ(document->offset, offset);
    EXPECT_GE(document->text.size(), 1U);
    EXPECT_LE(document->text.size(), static_cast<std::size_t>(bytes));
    documents.emplace_back(document->text);
    offset += document->text.size();
  }
  EXPECT_EQ(offset, text.size());
  return documents;
}

using Texts = std::vector<std::string>;

TEST(DocumentSplitter, CutsAtTheLastLineEndThatFits) {
  EXPECT_EQ(split("", 10), Texts{});
  EXPECT_EQ(split("short", 10), Texts{"short"});
  EXPECT_EQ(split("ab\ncd\nef\n", 6), (Texts{"ab\ncd\n", "ef\n"}));
  EXPECT_EQ(split("ab\ncd\nef\n", 7), (Texts{"ab\ncd\n", "ef\n"}));
  EXPECT_EQ(split("ab\ncd\nef\n", 9), (Texts{"ab\ncd\nef\n"}));
  EXPECT_EQ(split("\n\n\n\n\n\n", 4), (Texts{"\n\n\n\n", "\n\n"}));
}

TEST(DocumentSplitter, CutsLongLinesAnywhere) {
  EXPECT_EQ(split("0123456789", 4), (Texts{"0123", "4567", "89"}));
  EXPECT_EQ(split("01\n23456789", 4), (Texts{"01\n", "2345", "6789"}));
}

TEST(DocumentSplitter, NeverCutsACharacter) {
  std::string text;
  for (int i = 0; i < 200; ++i) {
    for (const char* character : {"a", "\u00e4", "\u20ac", "\U0001F600"}) {
      text += character;
      text += i % 7 == 0 ? "x" : "";
    }
  }
  for (std::int64_t bytes = 4; bytes < 40; ++bytes) {
    for (const std::string& document : split(text, bytes)) {
      EXPECT_EQ(find_invalid_utf8(document), std::nullopt) << bytes;
    }
  }
}

TEST(DocumentSplitter, EndsOnWhatIsNotUtf8) {
  split(std::string(1000, '\x80'), 4);
  split(std::string(1000, '\xFF'), 5);
}

TEST(DocumentSplitterDeathTest, NeedsRoomForACharacter) {
  EXPECT_DEATH(split("abc", 3), "document size");
}

}  // namespace
}  // namespace cartesian
