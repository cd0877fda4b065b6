#pragma once
// The report's page as the program carries it: the files of runtime/report/page/, embedded by
// embed_page.cmake.

namespace cartesian {

extern const char* const kPageTemplate;
extern const char* const kPageStyle;
extern const char* const kPageScript;

}  // namespace cartesian
