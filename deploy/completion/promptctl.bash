# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Completion of promptctl for bash. It asks promptctl's own --help, so it never falls behind.

# _promptctl_flags HELP...: the flags that a help text names, each with its = where it takes a value.
_promptctl_flags() {
    "$@" --help 2>/dev/null | sed -n '/^  --/p; /^Settings that count/,/^$/p' | grep -oE -e '--[a-z][a-z-]+=?' | sort -u
}

# _promptctl_commands PROGRAM: "dead list" and the like, one a line.
_promptctl_commands() {
    "$1" --help 2>/dev/null | sed -n '/^Commands/,/^$/s/^  \([a-z][a-z ]*[a-z]\)  .*/\1/p'
}

_promptctl() {
    local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local commands command='' word words=() i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        # A flag and the value behind its = are words of their own here.
        if [[ $word != -* && $word != = && ${COMP_WORDS[i - 1]} != = && ${COMP_WORDS[i - 1]} != --config ]]; then
            words+=("$word")
        fi
    done
    commands=$(_promptctl_commands "$program")
    if ((${#words[@]} > 1)) && grep -qxF "${words[0]} ${words[1]}" <<<"$commands"; then
        command="${words[0]} ${words[1]}"
    elif ((${#words[@]} > 0)) && grep -qxF "${words[0]}" <<<"$commands"; then
        command=${words[0]}
    fi

    if [[ $previous == --config || ($previous == = && ${COMP_WORDS[COMP_CWORD - 2]} == --config) ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    elif [[ $current == -* ]]; then
        # shellcheck disable=SC2086 # two words are two arguments
        mapfile -t COMPREPLY < <(compgen -W "--help $(_promptctl_flags "$program" $command)" -- "$current")
        if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && type compopt &>/dev/null; then
            compopt -o nospace 2>/dev/null
        fi
    elif [[ -z $command && ${#words[@]} == 0 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(cut -d ' ' -f 1 <<<"$commands" | sort -u)" -- "$current")
    elif [[ -z $command && ${#words[@]} == 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(sed -n "s/^${words[0]} //p" <<<"$commands")" -- "$current")
    elif [[ $command == 'dead show' || $command == 'dead replay' || $command == 'dead drop' ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" dead list 2>/dev/null | cut -d ' ' -f 1)" -- "$current")
    elif [[ $command == publish || $command == validate ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}

complete -F _promptctl promptctl
