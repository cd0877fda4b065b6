# cmake -DOUTPUT=... -DTEMPLATE=... -DSTYLE=... -DSCRIPTS="a;b" -P embed_page.cmake: writes the C++ file that defines what
# runtime/report/page_files.h declares.
set(delimiter "_page_")  # none of the files has )_page_" in it
function(literal name)
  set(text "")
  foreach(path ${ARGN})
    file(READ "${path}" part)
    string(APPEND text "${part}")
  endforeach()
  file(APPEND "${OUTPUT}.tmp" "const char* const ${name} = R\"${delimiter}(${text})${delimiter}\";\n")
endfunction()

file(WRITE "${OUTPUT}.tmp" "#include \"runtime/report/page_files.h\"\n\nnamespace cartesian {\n")
literal(kPageTemplate "${TEMPLATE}")
literal(kPageStyle "${STYLE}")
literal(kPageScript ${SCRIPTS})
file(APPEND "${OUTPUT}.tmp" "}  // namespace cartesian\n")
file(RENAME "${OUTPUT}.tmp" "${OUTPUT}")
