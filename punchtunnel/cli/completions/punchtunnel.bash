_punchtunnel_completion() {
    local line=${COMP_LINE:0:COMP_POINT} word begun
    mapfile -t COMPREPLY < <( env _TYPER_COMPLETE_ARGS="$line" _TYPER_COMPLETE_FISH_ACTION=get-args \
                              _PUNCHTUNNEL_COMPLETE=complete_fish $1 )
    # An empty line is no offer: then files are.
    [[ ${COMPREPLY[0]} ]] || COMPREPLY=()
    COMPREPLY=( "${COMPREPLY[@]%%$'\t'*}" )
    # An address that ends with a colon still needs its port: no space behind it.
    [[ "${COMPREPLY[*]}" != *: ]] || compopt -o nospace
    # Readline replaces only what stands behind the last colon, unless it is quoted.
    word=${line##*[[:space:]]}
    word=${word#--*=}
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* && $word != [\"\']* ]]; then
        begun=${word%"${word##*:}"}
        COMPREPLY=( "${COMPREPLY[@]#"$begun"}" )
    fi
    return 0
}

complete -o default -F _punchtunnel_completion punchtunnel
