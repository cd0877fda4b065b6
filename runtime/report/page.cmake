# Included, not a subdirectory: what a custom command makes is known only in the directory of its target.
# The page's sources become string literals of the program, scripts in the order in which they build on each other.
set(page_files "${CMAKE_CURRENT_BINARY_DIR}/report/page_files.cc")
set(page_scripts)
foreach(script dom format tooltip line_chart stacked_chart heat_map learning speed experts comparison setup main)
  list(APPEND page_scripts "${CMAKE_CURRENT_LIST_DIR}/page/${script}.js")
endforeach()
set(page_template "${CMAKE_CURRENT_LIST_DIR}/page/page.html")
set(page_style "${CMAKE_CURRENT_LIST_DIR}/page/style.css")
add_custom_command(OUTPUT "${page_files}"
  COMMAND "${CMAKE_COMMAND}" "-DOUTPUT=${page_files}" "-DTEMPLATE=${page_template}"
          "-DSTYLE=${page_style}" "-DSCRIPTS=${page_scripts}" -P "${CMAKE_CURRENT_LIST_DIR}/embed_page.cmake"
  DEPENDS "${page_template}" "${page_style}" ${page_scripts} "${CMAKE_CURRENT_LIST_DIR}/embed_page.cmake"
  COMMENT "Embedding the report's page" VERBATIM)
target_sources(cartesian_runtime PRIVATE "${page_files}")
