#include "base/error.h"

#include <stdio.h>
#include <string.h>

int refuse(struct sentence *why, int error, const char *format, ...)
{
    if (why) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(why->text, sizeof(why->text), format, arguments);
        va_end(arguments);
    }
    return error;
}

const char *error_text(int error)
{
    const char *text = strerrordesc_np(error < 0 ? -error : error);
    return text ? text : "unknown error";
}

const char *error_name(int error)
{
    const char *name = strerrorname_np(error < 0 ? -error : error);
    return name ? name : "E?";
}
