set(CARTESIAN_TIMEOUT_SCALE 1 CACHE STRING "Multiplies every test's time limit: sanitizers and long runs need more")

# cartesian_library(NAME SOURCES ... [DEPENDS ...] [PRIVATE_DEPENDS ...]): one layer of the house.
function(cartesian_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(cartesian_${name} STATIC ${ARG_SOURCES})
  add_library(cartesian::${name} ALIAS cartesian_${name})
  set_target_properties(cartesian_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(cartesian_${name} PUBLIC
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>" "$<INSTALL_INTERFACE:include/cartesian>")
  target_compile_features(cartesian_${name} PUBLIC cxx_std_20)
  target_link_libraries(cartesian_${name}
    PUBLIC ${ARG_DEPENDS} PRIVATE "$<BUILD_INTERFACE:cartesian_compiler>" ${ARG_PRIVATE_DEPENDS})
  set_property(GLOBAL APPEND PROPERTY CARTESIAN_LIBRARIES cartesian_${name})
endfunction()

# cartesian_test(NAME SOURCES ... [DEPENDS ...] [LABELS ...] [TIMEOUT s]): a GoogleTest program, one ctest entry.
function(cartesian_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPENDS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * ${CARTESIAN_TIMEOUT_SCALE}")
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gtest_main cartesian_compiler)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE "${CARTESIAN_COLD_CODE}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
    ENVIRONMENT "OMP_NUM_THREADS=1")
endfunction()

# cartesian_mpi_test(NAME TARGET RANKS 1 2 4 [TIMEOUT s] [ARGS ...]): runs a test program under mpirun, one entry a size.
function(cartesian_mpi_test name)
  cmake_parse_arguments(ARG "" "TARGET;TIMEOUT" "RANKS;ARGS" ${ARGN})
  if(NOT CARTESIAN_MPI)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * ${CARTESIAN_TIMEOUT_SCALE}")
  foreach(ranks ${ARG_RANKS})
    add_test(NAME ${name}_np${ranks}
      COMMAND ${MPIEXEC_EXECUTABLE} -np ${ranks} --oversubscribe --bind-to none
              --mca mpi_yield_when_idle 1 $<TARGET_FILE:${ARG_TARGET}> ${ARG_ARGS})
    set_tests_properties(${name}_np${ranks} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS mpi PROCESSORS 2
      ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMP_NUM_THREADS=1")
  endforeach()
endfunction()

# cartesian_bench(NAME SOURCES ... [DEPENDS ...]): a benchmark program under bench/.
function(cartesian_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} benchmark::benchmark cartesian_compiler)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
endfunction()
