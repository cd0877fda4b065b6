# Installs BUILD into WORK/prefix, then configures, builds and runs the project in SOURCE against it.
file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")
foreach(step
    "${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix"
    "${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix"
    "${CMAKE_COMMAND} --build ${WORK}/build"
    "${WORK}/build/consumer"
    "${WORK}/prefix/bin/cartesian --version")
  separate_arguments(command UNIX_COMMAND "${step}")
  execute_process(COMMAND ${command} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${step}\nfailed: ${result}\n${output}")
  endif()
endforeach()
message(STATUS "installed, found, built and ran")
