#compdef punchtunnel

_punchtunnel_completion() {
  local reply
  local -a suffix
  reply=$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _PUNCHTUNNEL_COMPLETE=complete_zsh punchtunnel)
  # An address that ends with a colon still needs its port: no space behind it.
  [[ $reply == *'\\:"))'"'" ]] && suffix=(-S '')
  eval ${reply/#_arguments /_arguments -O suffix }
}

compdef _punchtunnel_completion punchtunnel
# From a folder of $fpath this file is run by the first Tab, which wants an answer.
[[ $zsh_eval_context[-1] != loadautofunc ]] || _punchtunnel_completion "$@"
