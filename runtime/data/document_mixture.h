#pragma once
// A mixture of corpora by weight. Of all documents, after those that are held out, as many bytes as
// the corpora have together are written, and corpus c has the share w_c / sum of w of them: it is
// read several times if that is more than it has, and not to its end if it is less. Every reading
// is a random order of the corpus's documents, its own, that depends on the seed only. The next
// document is always one of the corpus that is furthest behind its share, so that the shares hold
// not only for the whole but, to within one document, for every beginning of it.

#include "runtime/data/document_stream.h"

namespace cartesian {

/// Held-out documents come first, once and in order. All texts stay mapped, and 16 bytes a document
/// are kept; texts are looked through once before the first document is given. Throws ConfigError,
/// naming --corpus, if a corpus has no documents but held-out ones.
std::unique_ptr<DocumentStream> mix_corpora(FileSystem& files, const TokenizeOptions& options);

}  // namespace cartesian
