def start(node):
    from lamdagent.config import read
    print(read(node))
