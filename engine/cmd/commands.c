#include "engine/cmd/cmd.h"

static const Command *const commands[] = {
#define COMMAND(name) &cmd_##name,
#include "engine/cmd/commands.def"
#undef COMMAND
};

size_t command_count(void)
{
    return ARRAY_LEN(commands);
}

const Command *command_at(size_t index)
{
    return commands[index];
}

const Command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static bool takes_word(const ConfOption *option, const char *word, size_t len)
{
    size_t section = strlen(option->section);

    if (len < section || memcmp(word, option->section, section) != 0)
        return false;
    if (len == section)
        return true;
    return word[section] == '.' && len - section - 1 == strlen(option->key) &&
           memcmp(word + section + 1, option->key, len - section - 1) == 0;
}

bool command_takes(const Command *command, const ConfOption *option)
{
    const char *at = command->sections ? command->sections : "";

    if (strcmp(at, "*") == 0 || takes_word(option, "log", 3) ||
        takes_word(option, "output.json", 11))
        return true;
    while (*at) {
        size_t len = strcspn(at, " ");

        if (takes_word(option, at, len))
            return true;
        at += len;
        at += strspn(at, " ");
    }
    return false;
}

bool command_misused(const Command *command, Err *err)
{
    if (command->operands)
        err_fail(err, ERR_USAGE, "what stands beside the options must be %s", command->operands);
    else
        err_fail(err, ERR_USAGE, "only options can follow");
    return err_hint(err, "keybridge help %s", command->name);
}
