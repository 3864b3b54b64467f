# SPDX-License-Identifier: MIT
# cmake -DFOLDER=folder -DOUTPUT=file.html -P Page.cmake: writes index.html of the folder with the style and the scripts
# beside it in place of their names, {{style.css}} and the like.
file(READ ${FOLDER}/index.html page)
file(GLOB parts ${FOLDER}/*.css ${FOLDER}/*.js)
foreach(part ${parts})
  get_filename_component(name ${part} NAME)
  file(READ ${part} text)
  string(REPLACE "{{${name}}}" "${text}" page "${page}")
endforeach()
if(page MATCHES "{{([a-z]+\\.(css|js))}}")
  message(FATAL_ERROR "${FOLDER}/index.html names ${CMAKE_MATCH_1}, which is not there")
endif()
file(WRITE ${OUTPUT} "${page}")
