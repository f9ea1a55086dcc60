# SPDX-License-Identifier: Apache-2.0
# dssim_library(NAME FOLDER folder [LINK targets…] [PRIVATE targets…])
# The static library dssim_NAME of every .cpp directly in a folder. A folder with nothing in it yet makes an interface
# library, so that the chain of layers stays whole.
function(dssim_library name)
  cmake_parse_arguments(arg "" "FOLDER" "LINK;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${arg_FOLDER}/*.cpp)
  if(NOT sources)
    add_library(dssim_${name} INTERFACE)
    target_link_libraries(dssim_${name} INTERFACE ${arg_LINK})
    return()
  endif()
  add_library(dssim_${name} STATIC ${sources})
  target_include_directories(dssim_${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(dssim_${name} PRIVATE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion)
  target_link_libraries(dssim_${name} PUBLIC ${arg_LINK} PRIVATE ${arg_PRIVATE})
endfunction()

if(DSSIM_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
